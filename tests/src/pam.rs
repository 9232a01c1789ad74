//! A program that authenticates through the real libpam, with services of the test's own: `pam_permit` and `pam_deny` decide.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::path::Path;
use std::ptr;

use nix::libc;

/// `PAM_TTY`, `PAM_RHOST`, `PAM_RUSER`, and a password: security/_pam_types.h.
pub const PAM_TTY: c_int = 3;
/// Remote host.
pub const PAM_RHOST: c_int = 4;
/// A password.
pub const PAM_AUTHTOK: c_int = 6;
/// Requesting user.
pub const PAM_RUSER: c_int = 8;
/// `PAM_USER`.
pub const PAM_USER: c_int = 2;
/// `PAM_AUTH_ERR`: what `pam_deny` says of an authentication.
pub const PAM_AUTH_ERR: c_int = 7;

/// The library where Debian has it.
pub const LIBPAM: &str = "/lib/x86_64-linux-gnu/libpam.so.0";

/// A service that lets everybody in, and one that lets nobody.
///
/// # Panics
/// The folder cannot be written.
pub fn write_services(folder: &Path) {
    for (service, module) in [("bz-permit", "pam_permit.so"), ("bz-deny", "pam_deny.so")] {
        let text = ["auth", "account", "session"].map(|kind| format!("{kind} required {module}\n")).concat();
        let path = folder.join(service);
        fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
}

/// A loaded libpam with one open transaction.
#[derive(Debug)]
pub struct Pam {
    library: *mut c_void,
    handle: *mut c_void,
}

#[repr(C)]
struct Conversation {
    talk: extern "C" fn(c_int, *mut c_void, *mut *mut c_void, *mut c_void) -> c_int,
    data: *mut c_void,
}

/// `PAM_CONV_ERR`: nobody is asked anything.
extern "C" fn no_talk(_: c_int, _: *mut c_void, _: *mut *mut c_void, _: *mut c_void) -> c_int {
    19
}

fn text(text: &str) -> CString {
    CString::new(text).expect("no NUL in the tests' own texts")
}

impl Pam {
    /// Loads `library` and begins a transaction of `service`, whose file is in `folder`.
    ///
    /// # Panics
    /// The library is not there, or does not begin.
    pub fn start(library: &Path, folder: &Path, service: &str, user: &str) -> Self {
        let path = text(&library.to_string_lossy());
        // SAFETY: a NUL-terminated path.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null(), "this test needs the real {path:?} (apt-get install libpam0g): {}", error());
        let mut pam = Self { library, handle: ptr::null_mut() };
        let conversation = Box::leak(Box::new(Conversation { talk: no_talk, data: ptr::null_mut() }));
        let (service, user, folder) = (text(service), text(user), text(&folder.to_string_lossy()));
        type Start = unsafe extern "C" fn(*const c_char, *const c_char, *const Conversation, *const c_char, *mut *mut c_void) -> c_int;
        // SAFETY: the signature is that of Linux-PAM 1.4 and newer.
        let result = unsafe {
            let start: Start = std::mem::transmute(pam.symbol(c"pam_start_confdir"));
            start(service.as_ptr(), user.as_ptr(), conversation, folder.as_ptr(), &raw mut pam.handle)
        };
        assert_eq!(result, 0, "pam_start_confdir");
        pam
    }

    fn symbol(&self, name: &CStr) -> *mut c_void {
        // SAFETY: the library is open.
        let symbol = unsafe { libc::dlsym(self.library, name.as_ptr()) };
        assert!(!symbol.is_null(), "libpam has no {name:?}");
        symbol
    }

    /// `pam_set_item` with a string.
    ///
    /// # Panics
    /// It refuses.
    pub fn set(&self, item: c_int, value: &str) {
        assert_eq!(self.try_set(item, value), 0, "pam_set_item {item}");
    }

    /// `pam_set_item` with a string; its result.
    pub fn try_set(&self, item: c_int, value: &str) -> c_int {
        let value = text(value);
        type SetItem = unsafe extern "C" fn(*mut c_void, c_int, *const c_void) -> c_int;
        // SAFETY: the signature is libpam's; it copies the string.
        unsafe {
            let set_item: SetItem = std::mem::transmute(self.symbol(c"pam_set_item"));
            set_item(self.handle, item, value.as_ptr().cast())
        }
    }

    /// Calls one of `pam_authenticate`, `pam_acct_mgmt`, `pam_open_session`, `pam_close_session`.
    pub fn call(&self, function: &CStr) -> c_int {
        type Call = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
        // SAFETY: all four have this signature.
        unsafe {
            let call: Call = std::mem::transmute(self.symbol(function));
            call(self.handle, 0)
        }
    }

    /// `pam_end`.
    pub fn end(self) {
        type End = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
        // SAFETY: the signature is libpam's, and the handle is not used again.
        unsafe {
            let end: End = std::mem::transmute(self.symbol(c"pam_end"));
            end(self.handle, 0);
        }
    }
}

fn error() -> String {
    // SAFETY: dlerror returns a string or null.
    unsafe {
        let error = libc::dlerror();
        if error.is_null() { String::new() } else { CStr::from_ptr(error).to_string_lossy().into_owned() }
    }
}
