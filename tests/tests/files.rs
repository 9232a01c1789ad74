//! What is done to files, on a real kernel: a trigger, the event that it must give field by field, the ways round a path that must give the
//! same, and twins that differ in one property and give none. Runs on this kernel, where fanotify carries most of it, and by `cargo xtask vm`
//! on others.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use bartizan_tests::trigger::{Numbers, Table, low_page};
use bartizan_tests::uring::{Submission, URING_SQPOLL, submit};
use bartizan_tests::{Folder, Sensor, wait_for, ways};
use nix::libc;
use serde_json::{Value, json};

/// A sensor that watches `watched` (its changes) and `secrets` (its readers too) in a folder of its own.
struct Watch {
    sensor: Sensor,
    folder: Folder,
    marks: u32,
}

impl Watch {
    #[track_caller]
    fn start() -> Self {
        let folder = Folder::new();
        for name in ["watched", "secrets", "other"] {
            fs::create_dir(folder.join(name)).expect(name);
        }
        folder.write("secrets/key", "secret");
        folder.write("other/key", "nobody's");
        let path = folder.path().display();
        let config = format!(
            "[files]\nextra_watch = [\"{path}/watched\", \"{path}/later/*/conf\"]\nextra_read = [\"{path}/secrets\"]\neverywhere = true\n"
        );
        let sensor = Sensor::with().hooks(&["file_"]).config(&config).start();
        Self { sensor, folder, marks: 0 }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Waits until all that has happened so far is in EVENTS: a folder made in the watched one is told behind it.
    #[track_caller]
    fn settle(&mut self) {
        self.marks += 1;
        let mark = self.at(&format!("watched/mark-{}", self.marks));
        fs::create_dir(&mark).expect("a mark");
        let path = mark.display().to_string();
        wait_for("the mark's event", || {
            self.sensor.events_json(&["--kind", "file.create"]).into_iter().find(|event| event["body"]["file"]["path"] == *path)
        });
    }

    /// Events of a kind whose file lies in the folder of this test, in order, without the marks.
    #[track_caller]
    fn told(&mut self, kind: &str) -> Vec<Value> {
        self.settle();
        let root = self.folder.path().display().to_string();
        let mark = format!("{root}/watched/mark-");
        let events = self.sensor.events_json(&["--kind", kind]);
        let is_ours = |event: &Value| {
            let paths = [&event["body"]["file"]["path"], &event["body"]["old_path"], &event["body"]["to"], &event["body"]["target"]];
            let paths = || paths.into_iter().filter_map(Value::as_str);
            paths().any(|path| path.starts_with(&root)) && !paths().any(|path| path.starts_with(&mark))
        };
        events.into_iter().filter(is_ours).collect()
    }

    /// The one event of a kind about this path.
    #[track_caller]
    fn one(&mut self, kind: &str, path: &Path) -> Value {
        let path = path.display().to_string();
        let events = self.told(kind);
        let about: Vec<&Value> = events.iter().filter(|event| event["body"]["file"]["path"] == *path).collect();
        assert_eq!(about.len(), 1, "{kind} of {path}: {events:#?}");
        about[0].clone()
    }
}

/// Asserts that an event's file is that at `path` now, and that this test did it.
#[track_caller]
fn is_file(event: &Value, path: &Path, rule: &str) {
    let meta = fs::symlink_metadata(path).expect("the file");
    let file = &event["body"]["file"];
    assert_eq!(
        json!([file["path"], file["inode"], file["owner"], file["group"]]),
        json!([path, meta.ino(), meta.uid(), meta.gid()]),
        "{event:#}"
    );
    // A link is told before there is one more, where a program of the kernel's tells it, and behind it, where fanotify does.
    let before = meta.nlink() - u64::from(event["kind"] == "file.link");
    assert!(file["links"].as_u64().is_some_and(|links| (before..=meta.nlink()).contains(&links)), "{event:#}");
    assert!(file["watch"].as_str().is_some_and(|watch| watch.ends_with(rule)), "{event:#}");
    assert_eq!(event["process"]["pid"], std::process::id(), "{event:#}");
    assert_eq!(event["outcome"], "success");
}

#[test]
fn what_is_created_or_opened_to_be_written_in_a_watched_folder_is_told() {
    let mut watch = Watch::start();
    let (made, other) = (watch.at("watched/made"), watch.at("other/made"));
    fs::write(&made, "contents").expect("a file");
    fs::write(&other, "contents").expect("a file");
    let events = watch.told("file.open");
    let before = events.len();
    // Its creation and its first write may be two looks of the sensor apart.
    assert!((1..=2).contains(&before), "{events:#?}");
    events.iter().for_each(|event| is_file(event, &made, "/watched"));
    assert_eq!(events[0]["body"]["created"], true, "{events:#?}");
    assert!(events.iter().any(|event| event["body"]["write"] == true), "{events:#?}");
    assert_eq!(events[0]["body"]["file"]["mode"], 0o100_644);
    // A reader of it is nobody's business, nor is its neighbour.
    fs::read(&made).expect("its contents");
    assert_eq!(watch.told("file.open").len(), before);
    // Written without being created.
    OpenOptions::new().append(true).open(&made).expect("the file").write_all(b"more").expect("written");
    let events = watch.told("file.open");
    assert_eq!(events.len(), before + 1, "{events:#?}");
    is_file(&events[before], &made, "/watched");
    assert_ne!(events[before]["body"]["created"], true);
    assert_eq!(events[before]["body"]["write"], true);
}

/// The way that has the file open twice.
const TWOFOLD: &str = "a descriptor that could not read";

#[test]
fn readers_of_a_secret_are_told_whichever_way_they_take() {
    let mut watch = Watch::start();
    let (secret, other) = (watch.at("secrets/key"), watch.at("other/key"));
    let inode = fs::metadata(&secret).expect("the secret").ino();
    let (soft, hard) = (watch.at("other/soft"), watch.at("other/hard"));
    symlink(&secret, &soft).expect("a symbolic link");
    fs::hard_link(&secret, &hard).expect("a hard link");
    let by_descriptor = |path: &Path| {
        let handle = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
        File::open(format!("/proc/self/fd/{}", handle.as_raw_fd())).map(Into::into)
    };
    let by_root = |path: &Path| File::open(Path::new("/proc/self/root").join(path.strip_prefix("/").expect("absolute"))).map(Into::into);
    type Way<'a> = (&'a str, &'a Path, &'a dyn Fn(&Path) -> std::io::Result<std::os::fd::OwnedFd>);
    let open = |path: &Path| File::open(path).map(Into::into);
    let reading = libc::O_RDONLY;
    let ways: [Way<'_>; 9] = [
        ("its path", &secret, &open),
        ("a symbolic link", &soft, &open),
        ("a hard link", &hard, &open),
        (TWOFOLD, &secret, &by_descriptor),
        ("the root of a process", &secret, &by_root),
        ("openat2", &secret, &|path| ways::open_by_openat2(path, reading)),
        ("a handle", &secret, &|path| ways::open_by_handle(path, reading)),
        ("a 32-bit call", &secret, &|path| ways::open_by_int80(path, reading)),
        ("io_uring", &secret, &|path| ways::open_by_io_uring(path, reading)),
    ];
    let mut before = 0;
    for (name, path, way) in ways {
        // Held until it is told: of what is closed again at once fanotify does not say how it was opened.
        let held = way(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let events: Vec<Value> = watch.told("file.open").into_iter().filter(|event| event["body"]["file"]["inode"] == inode).collect();
        assert_eq!(events.len(), before + 1, "{name}: {events:#?}");
        let event = &events[before];
        let told = json!([event["body"]["read"], event["body"]["write"]]);
        // Where it saw both descriptors of this way, it does not say either.
        let is_twofold = name == TWOFOLD && told == json!([null, null]);
        assert!(is_twofold || told == json!([true, false]), "{name}: {event:#}");
        assert_eq!(event["process"]["pid"], std::process::id(), "{name}");
        assert!(event["body"]["file"]["watch"].as_str().is_some_and(|rule| rule.ends_with("/secrets")), "{name}: {event:#}");
        before = events.len();
        drop(held);
    }
    // By a mount of another place upon it, in a mount namespace of its own.
    let script = format!("mount --bind {} /mnt && cat /mnt/key > /dev/null", watch.at("secrets").display());
    let status = Command::new("unshare").args(["--mount", "sh", "-c", &script]).status().expect("unshare (util-linux)");
    assert!(status.success());
    watch.settle();
    let events = watch.sensor.events_json(&["--kind", "file.open"]);
    let events: Vec<&Value> = events.iter().filter(|event| event["body"]["file"]["inode"] == inode).collect();
    assert_eq!(events.len(), before + 1, "{events:#?}");
    assert_eq!(events[before]["process"]["argv"][0], "cat");
    // The twin: the same, and nobody's secret.
    fs::read(&other).expect("its contents");
    let path = other.display().to_string();
    assert!(watch.told("file.open").iter().all(|event| event["body"]["file"]["path"] != *path));
}

#[test]
fn a_file_that_takes_the_place_of_a_watched_one_is_watched_in_its_stead() {
    let mut watch = Watch::start();
    let (secret, new) = (watch.at("secrets/key"), watch.at("other/new"));
    let before = fs::metadata(&secret).expect("the secret").ino();
    fs::write(&new, "new").expect("a file");
    fs::rename(&new, &secret).expect("renamed");
    let event = watch.one("file.rename", &secret);
    is_file(&event, &secret, "/secrets");
    assert_eq!(event["body"]["old_path"], new.display().to_string());
    let after = fs::metadata(&secret).expect("the secret").ino();
    assert_ne!(before, after);
    fs::read(&secret).expect("its contents");
    let event = watch.one("file.open", &secret);
    assert_eq!(event["body"]["file"]["inode"], after, "{event:#}");
    // A rename that fails is none.
    let failed = nix::fcntl::renameat2(
        nix::fcntl::AT_FDCWD,
        &watch.at("other/key"),
        nix::fcntl::AT_FDCWD,
        &secret,
        nix::fcntl::RenameFlags::RENAME_NOREPLACE,
    );
    assert_eq!(failed, Err(nix::errno::Errno::EEXIST));
    assert_eq!(watch.told("file.rename").len(), 1);
}

#[test]
fn what_appears_where_a_watched_path_may_be_is_watched() {
    let mut watch = Watch::start();
    let folder = watch.at("later/of/conf");
    fs::create_dir_all(&folder).expect("folders");
    watch.settle();
    let file = folder.join("x");
    // It is on the list when the events of its folders were read.
    let event = wait_for("an event of the new file", || {
        let _ = fs::remove_file(&file);
        fs::write(&file, "x").expect("a file");
        let path = file.display().to_string();
        watch.sensor.events_json(&["--kind", "file.open"]).into_iter().find(|event| event["body"]["file"]["path"] == *path)
    });
    assert_eq!(event["body"]["created"], true, "{event:#}");
    assert!(event["body"]["file"]["watch"].as_str().is_some_and(|rule| rule.ends_with("/later/*/conf")), "{event:#}");
}

#[test]
fn names_that_come_and_go_are_told() {
    let mut watch = Watch::start();
    let secret = watch.at("secrets/key");
    let (hard, soft, gone) = (watch.at("watched/hard"), watch.at("watched/soft"), watch.at("other/gone"));
    fs::hard_link(&secret, &hard).expect("a hard link");
    let event = watch.one("file.link", &hard);
    is_file(&event, &hard, "s");
    assert_eq!(event["body"]["symbolic"], false);

    symlink("/etc/passwd", &soft).expect("a symbolic link");
    let event = watch.one("file.link", &soft);
    assert_eq!(json!([event["body"]["to"], event["body"]["symbolic"]]), json!(["/etc/passwd", true]), "{event:#}");

    fs::remove_file(&hard).expect("removed");
    let event = watch.one("file.unlink", &hard);
    assert_eq!(json!([event["body"]["file"]["inode"], event["body"]["folder"]]), json!([fs::metadata(&secret).expect("it").ino(), false]));

    // Watched or not.
    fs::write(&gone, "x").expect("a file");
    let inode = fs::metadata(&gone).expect("it").ino();
    fs::rename(&gone, watch.at("other/renamed")).expect("renamed");
    let event = watch.one("file.rename", &watch.at("other/renamed"));
    assert_eq!(
        json!([event["body"]["old_path"], event["body"]["file"]["inode"], event["body"]["file"]["watch"]]),
        json!([gone, inode, null]),
        "{event:#}"
    );
    fs::remove_file(watch.at("other/renamed")).expect("removed");
    let event = watch.one("file.unlink", &watch.at("other/renamed"));
    assert_eq!(json!([event["body"]["file"]["watch"], event["process"]["pid"]]), json!([null, std::process::id()]), "{event:#}");

    let folder = watch.at("other/folder");
    fs::create_dir(&folder).expect("a folder");
    fs::remove_dir(&folder).expect("removed");
    assert_eq!(watch.one("file.unlink", &folder)["body"]["folder"], true);
    assert!(watch.told("file.create").iter().all(|event| event["body"]["file"]["path"] != *folder.display().to_string()));
}

/// `IORING_OP_*`, include/uapi/linux/io_uring.h.
const OP_RENAMEAT: u8 = 35;
const OP_UNLINKAT: u8 = 36;
const OP_LINKAT: u8 = 39;

/// A way to change names.
#[derive(Debug, Clone, Copy)]
enum Way {
    Call(Table),
    /// io_uring, with these `IORING_SETUP_*`.
    Ring(u32),
}

impl Way {
    /// The call, or the operation of a ring, with one path or two.
    #[track_caller]
    fn act(self, numbers: Numbers, opcode: u8, from: &Path, to: Option<&Path>) {
        let low = |path: &Path| low_page(&[path.as_os_str().as_bytes(), &[0]].concat());
        let (from, to) = (low(from), to.map_or(0, low));
        let result = match self {
            Self::Call(table) => table.call(numbers, &[from, to]),
            Self::Ring(setup) => {
                // The second folder is where the length would be.
                let len = if to == 0 { 0 } else { libc::AT_FDCWD.cast_unsigned() };
                let submission = Submission { opcode, fd: libc::AT_FDCWD, addr: from.into(), off: to.into(), len, ..Submission::default() };
                submit(setup, submission).expect("a ring")
            }
        };
        assert_eq!(result, 0, "{self:?}");
    }
}

#[test]
fn names_that_come_and_go_by_32_bit_calls_and_rings_are_told_likewise() {
    let mut watch = Watch::start();
    let ways = [Way::Call(Table::Wide), Way::Call(Table::Narrow), Way::Ring(0), Way::Ring(URING_SQPOLL)];
    // Older than what the sensor looks at: fanotify does not say whether a name is that of a new file or a further one.
    let files = [0, 1, 2, 3].map(|number: usize| watch.at(&format!("watched/file-{number}")));
    files.iter().for_each(|file| fs::write(file, "x").expect("a file"));
    watch.settle();
    watch.settle();
    for ((number, way), file) in ways.into_iter().enumerate().zip(files) {
        let [link, renamed] = ["link", "renamed"].map(|name| watch.at(&format!("watched/{name}-{number}")));
        let inode = fs::metadata(&file).expect("the file").ino();
        way.act(Numbers(libc::SYS_link, 9), OP_LINKAT, &file, Some(&link));
        let event = watch.one("file.link", &link);
        is_file(&event, &link, "/watched");
        assert_eq!((&event["body"]["symbolic"], &event["body"]["file"]["inode"]), (&json!(false), &json!(inode)), "{way:?}: {event:#}");
        way.act(Numbers(libc::SYS_rename, 38), OP_RENAMEAT, &link, Some(&renamed));
        let event = watch.one("file.rename", &renamed);
        is_file(&event, &renamed, "/watched");
        assert_eq!(event["body"]["old_path"], json!(link), "{way:?}: {event:#}");
        way.act(Numbers(libc::SYS_unlink, 10), OP_UNLINKAT, &renamed, None);
        let event = watch.one("file.unlink", &renamed);
        let told = json!([event["body"]["folder"], event["body"]["file"]["inode"], event["process"]["pid"], event["outcome"]]);
        assert_eq!(told, json!([false, inode, std::process::id(), "success"]), "{way:?}: {event:#}");
    }
}

#[test]
fn attributes_that_are_set_on_watched_files_are_told() {
    let mut watch = Watch::start();
    let (secret, other) = (watch.at("secrets/key"), watch.at("other/key"));
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o4711)).expect("chmod");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).expect("chmod");
    let event = watch.one("file.attributes", &secret);
    is_file(&event, &secret, "/secrets");
    assert_eq!(event["body"]["mode"], json!({ "from": 0o644, "to": 0o4711 }), "{event:#}");
    std::os::unix::fs::chown(&secret, Some(7), Some(8)).expect("chown");
    let events = watch.told("file.attributes");
    assert_eq!(events.len(), 2, "{events:#?}");
    let body = &events[1]["body"];
    assert_eq!(json!([body["owner"], body["group"]]), json!([{ "from": 0, "to": 7 }, { "from": 0, "to": 8 }]), "{events:#?}");
    assert_eq!(json!([body["file"]["owner"], body["file"]["group"]]), json!([7, 8]));

    let path = CString::new(secret.as_os_str().as_bytes()).expect("no NUL");
    // SAFETY: strings with their NUL, and as many bytes as is said.
    let set = unsafe { libc::setxattr(path.as_ptr(), c"trusted.bartizan".as_ptr(), c"12345".as_ptr().cast(), 5, 0) };
    if set != 0 {
        // A guest's root folder may be of a file system that keeps none.
        let error = std::io::Error::last_os_error();
        assert!(std::env::var_os("BARTIZAN_VM").is_some() && error.raw_os_error() == Some(libc::EOPNOTSUPP), "{error}");
        return;
    }
    let event = watch.one("file.xattr", &secret);
    assert_eq!(json!([event["body"]["name"], event["body"]["size"], event["body"]["removed"]]), json!(["trusted.bartizan", 5, false]));
}

#[test]
fn mounts_are_told_wherever_they_are() {
    let mut watch = Watch::start();
    let place = watch.at("other");
    let script = format!("mount -t tmpfs none {0} && mount --bind / {0} && umount {0} && umount {0}", place.display());
    let status = Command::new("unshare").args(["--mount", "sh", "-c", &script]).status().expect("unshare (util-linux)");
    assert!(status.success());
    watch.settle();
    let place = place.display().to_string();
    let ours = |watch: &Watch, kind: &str| -> Vec<Value> {
        watch.sensor.events_json(&["--kind", kind]).into_iter().filter(|event| event["body"]["target"] == *place).collect()
    };
    let mounts = ours(&watch, "file.mount");
    let told: Vec<Value> = mounts
        .iter()
        .map(|event| json!([event["body"]["action"], event["body"]["source"], event["body"]["error"], event["process"]["argv"][0]]))
        .collect();
    assert_eq!(told, [json!(["mount", "none", null, "mount"]), json!(["bind", "/", null, "mount"])], "{mounts:#?}");
    assert_eq!(mounts[0]["body"]["file_system"], "tmpfs");
    assert_eq!(ours(&watch, "file.umount").len(), 2);
}

#[test]
fn the_status_says_what_is_watched() {
    let watch = Watch::start();
    let files = watch.sensor.status_json()["files"].clone();
    assert!(files["files"].as_u64() > Some(0) && files["folders"].as_u64() >= Some(3), "{files:#}");
    assert!(files["missing"].as_u64() > Some(0), "nobody has all of the default list: {files:#}");
    assert_eq!(files["beyond"], 0);
}

/// Bytes that have no order: a linear congruential generator's high bits.
fn disorder(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Whether `path` lies in a file system without a disk.
fn is_in_memory(path: &Path) -> bool {
    let device = fs::metadata(path).expect("a folder").dev();
    let device = format!(" {}:{} ", libc::major(device), libc::minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    mounts.lines().any(|line| line.contains(&device) && [" - tmpfs ", " - rootfs ", " - ramfs "].iter().any(|kind| line.contains(kind)))
}

#[test]
fn what_is_written_is_counted_and_sampled_by_file() {
    const LEN: usize = 64 << 10;
    let mut watch = Watch::start();
    let text = "All work and no play makes Jack a dull boy.\n".repeat(LEN / 44 + 1);
    let contents: [(&str, &[u8]); 3] = [("zeros", &[0; LEN]), ("text", &text.as_bytes()[..LEN]), ("disorder", &disorder(LEN))];
    for (name, contents) in contents {
        // One call for each page.
        let mut file = File::create(watch.at(&format!("other/{name}"))).expect("a file");
        contents.chunks(4096).for_each(|page| file.write_all(page).expect("written"));
    }
    watch.settle();
    if is_in_memory(&watch.at("other")) {
        // Pages that have no disk to go to are never dirty: the hook says that it is blind for them.
        let events = watch.sensor.events_json(&["--kind", "file.write"]);
        let root = watch.at("other").display().to_string();
        assert!(
            events.iter().all(|event| event["body"]["file"]["path"].as_str().is_none_or(|path| !path.starts_with(&root))),
            "{events:#?}"
        );
        return;
    }
    let told = |watch: &Watch, name: &str| {
        let path = watch.at(&format!("other/{name}")).display().to_string();
        wait_for("the file's event", || {
            let events = watch.sensor.events_json(&["--kind", "file.write"]);
            events.into_iter().find(|event| event["body"]["file"]["path"] == *path)
        })
    };
    let [zeros, text, disorder] = ["zeros", "text", "disorder"].map(|name| told(&watch, name));
    for event in [&zeros, &text, &disorder] {
        assert_eq!((&event["body"]["pages"], &event["body"]["bytes"]), (&json!(LEN / 4096), &json!(LEN)), "{event:#}");
        assert_eq!(event["process"]["pid"], std::process::id());
        assert!(event["body"]["samples"].as_u64() >= Some(8), "{event:#}");
    }
    let distinct = |event: &Value| event["body"]["distinct_bytes"].as_u64().expect("sampled");
    assert_eq!(distinct(&zeros), 100);
    assert!((1_000..3_500).contains(&distinct(&text)), "{text:#}");
    assert!((5_200..6_200).contains(&distinct(&disorder)), "{disorder:#}");
    assert_eq!(text["body"]["magic"], json!(b"All work"), "{text:#}");
}
