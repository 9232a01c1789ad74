//! Containers of a real engine. Others are made of a control group and their runtime's files: `capture.rs`.

use std::fs;
use std::path::Path;
use std::process::Command;

use bartizan_tests::{Folder, Outcome, Sensor, VICTIM_PATH, need, run, wait_until};
use serde_json::Value;

/// podman with a store of its own, below a folder that stands for the host's root.
struct Podman<'h> {
    host: &'h Folder,
}

impl<'h> Podman<'h> {
    /// With one image, of busybox and nothing else.
    fn new(host: &'h Folder, image: &str) -> Self {
        let podman = Self { host };
        let busybox = need("busybox", "busybox-static");
        let bin = host.join("image/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(busybox, bin.join("busybox")).unwrap();
        for name in ["true", "sleep"] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
        let archive = host.join("image.tar");
        run(Command::new("tar").arg("-C").arg(host.join("image")).arg("-cf").arg(&archive).arg(".")).ok();
        podman.run(&["import", &archive.to_string_lossy(), image]).ok();
        podman
    }

    fn run(&self, args: &[&str]) -> Outcome {
        let mut command = Command::new(need("podman", "podman"));
        command.env_clear().env("PATH", VICTIM_PATH).env("HOME", self.host.path());
        for (option, folder) in
            [("--root", "var/lib/containers/storage"), ("--runroot", "run/containers/storage"), ("--tmpdir", "run/libpod")]
        {
            command.arg(option).arg(self.host.join(folder));
        }
        // vfs works on any file system; cgroupfs without systemd.
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime"]);
        command.arg(need("runc", "runc")).args(args);
        run(&mut command)
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        // Those that a failed test has left; without any, it does nothing.
        for args in [["pod", "rm", "--all", "--force"], ["rm", "--all", "--force", "--volumes"]] {
            let outcome = self.run(&args);
            if outcome.code != Some(0) {
                eprintln!("containers may be left behind: {outcome}");
            }
        }
        // podman leaves its own control groups; where another podman has something in them, they stay.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for line in mounts.lines() {
            let mut fields = line.split(' ');
            if let (Some(root), Some("cgroup" | "cgroup2")) = (fields.nth(1), fields.next()) {
                for group in ["libpod_parent/conmon", "libpod_parent"] {
                    let _ = fs::remove_dir(format!("{root}/{group}"));
                }
            }
        }
    }
}

/// Limits that any container may have: podman's own are higher than what a test machine may set.
const LIMITS: [&str; 4] = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];

fn inode(path: &str) -> Value {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(Path::new(path)).unwrap()).into()
}

#[test]
fn podman_s_containers_have_name_image_pod_and_namespaces() {
    let host = Folder::new();
    let podman = Podman::new(&host, "bartizan-test:1");
    let config = format!("[sensor]\nruntime_root = {:?}\n", host.path());
    let mut sensor = Sensor::with().config(&config).start();

    let pod = podman.run(&["pod", "create", "--infra=false", "--name", "shop"]).ok().stdout.trim().to_owned();
    let started = podman.run(
        &[&["run", "-d", "--name", "web", "--pod", "shop", "--network", "none"], &LIMITS[..], &["bartizan-test:1", "/bin/sleep", "600"]]
            .concat(),
    );
    let id = started.ok().stdout.trim().to_owned();
    wait_until("what podman keeps of the container", || sensor.status_json()["containers"]["known"] == 1);
    podman.run(&["exec", "web", "/bin/true"]).ok();
    podman.run(&["pod", "rm", "--force", "--time", "0", "shop"]).ok();
    sensor.settle();

    let events = sensor.events_json(&["--kind", "process.exec"]);
    let of = |argument: &str| {
        let exec =
            events.iter().find(|event| event["process"]["argv"][0] == argument && event["process"]["container"]["id"] == id.as_str());
        exec.unwrap_or_else(|| panic!("no exec of {argument} in {id}: {events:#?}"))["process"].clone()
    };
    let (first, later) = (of("/bin/sleep"), of("/bin/true"));
    assert_eq!(first["container"]["runtime"], "podman");
    let container = &later["container"];
    assert_eq!((&container["name"], &container["image"]), (&Value::from("web"), &Value::from("localhost/bartizan-test:1")));
    assert!(container["image_id"].as_str().is_some_and(|id| id.len() == 64), "{container:#}");
    assert_eq!(container["pod"]["uid"], pod.as_str());
    for name in ["ipc", "mnt", "net", "pid", "uts"] {
        assert_eq!(later["namespaces"][name], first["namespaces"][name], "{name}");
        assert_ne!(later["namespaces"][name], inode(&format!("/proc/self/ns/{name}")), "{name}");
    }
    assert_eq!(later["namespaces"]["user"], inode("/proc/self/ns/user"));
    // The container's monitor is outside of it, although its control group may carry the id.
    let conmon = events.iter().filter(|event| event["process"]["exe"]["path"].as_str().is_some_and(|path| path.ends_with("/conmon")));
    assert!(conmon.clone().count() > 0 && conmon.clone().all(|event| event["process"]["container"].is_null()));
}
