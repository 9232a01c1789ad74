//! Code that is put into the kernel, as records tell it.

/// Bytes of a module's name with its NUL: `MODULE_NAME_LEN`, include/linux/moduleparam.h.
pub const MODULE_NAME_MAX: usize = 56;
/// Longest parameters of a module that are kept, bytes with the NUL.
pub const MODULE_ARGS_MAX: usize = 128;

/// `Module::known`: it came from memory (`init_module`), not from a file.
pub const MODULE_FROM_MEMORY: u32 = 1 << 0;
/// `Module::known`: the kernel has checked its signature and found it good.
pub const MODULE_SIGNED: u32 = 1 << 1;
/// `Module::known`: the kernel has found no good signature.
pub const MODULE_UNSIGNED: u32 = 1 << 2;

/// What is done with a module.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleAct {
    /// It is in its place; its own code runs next.
    Load = 1,
    /// The kernel refused it, or its own code said no.
    LoadFailed = 2,
    /// It is taken out.
    Unload = 3,
    /// The kernel asks user space to load one.
    Request = 4,
}

impl ModuleAct {
    /// The act with this number; `None` for one that this build does not know.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Load),
            2 => Some(Self::LoadFailed),
            3 => Some(Self::Unload),
            4 => Some(Self::Request),
            _ => None,
        }
    }
}

/// What is done with another kernel.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KexecAct {
    /// `kexec_load`: segments of the caller's memory.
    Load = 1,
    /// `kexec_file_load`: a file.
    LoadFile = 2,
    /// It is booted.
    Execute = 3,
}

impl KexecAct {
    /// The act with this number; `None` for one that this build does not know.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Load),
            2 => Some(Self::LoadFile),
            3 => Some(Self::Execute),
            _ => None,
        }
    }
}
