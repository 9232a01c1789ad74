//! Which layer of an overlay a program lies in. Not in the VM, whose kernel has overlays only as a module.

use std::fs;
use std::process::{Command, Stdio};

use bartizan_tests::Sensor;
use nix::mount::{MsFlags, mount, umount};
use serde_json::{Value, json};

#[test]
fn a_program_of_the_writable_layer_is_told_from_one_below() {
    let mut sensor = Sensor::start();
    let folder = |name| {
        let path = sensor.folder().join(name);
        fs::create_dir(&path).expect("a folder");
        path
    };
    // An overlay will not have another one's files above: a tmpfs holds the layers, wherever the folder is.
    let layers = folder("layers");
    mount(Some("tmpfs"), &layers, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a tmpfs");
    let merged = folder("merged");
    for name in ["lower", "upper", "work"] {
        fs::create_dir(layers.join(name)).expect("a layer");
    }
    for name in ["below", "copied-up"] {
        fs::copy("/bin/true", layers.join("lower").join(name)).expect("a program");
    }
    let options = ["lower", "upper", "work"].map(|name| format!("{name}dir={}", layers.join(name).display())).join(",");
    mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str())).expect("an overlay");
    fs::copy("/bin/true", merged.join("new")).expect("a new program");
    let mut file = fs::OpenOptions::new().append(true).open(merged.join("copied-up")).expect("the program");
    std::io::Write::write_all(&mut file, b"\0").expect("a byte more");
    drop(file);
    let pids = ["below", "copied-up", "new"].map(|name| {
        let mut child = Command::new(merged.join(name)).stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("a program");
        child.wait().expect("its end");
        child.id()
    });
    let hashes = pids.map(|pid| {
        bartizan_tests::wait_for("the hash of an executable", || {
            sensor.events_json(&["--kind", "process.hash", "--pid", &pid.to_string()]).into_iter().next()
        })
    });
    let sums = ["below", "copied-up", "new"].map(|name| {
        let outcome = bartizan_tests::run(Command::new("sha256sum").arg(merged.join(name))).ok();
        outcome.stdout.split_whitespace().next().expect("a sum").to_owned()
    });
    sensor.settle();
    umount(&merged).expect("the overlay goes");
    umount(&layers).expect("the tmpfs goes");

    for ((pid, upper), (hash, sum)) in pids.into_iter().zip([false, true, true]).zip(hashes.iter().zip(&sums)) {
        let events = sensor.events_json(&["--kind", "process.exec", "--pid", &pid.to_string()]);
        let exe: &Value = &events.last().expect("an exec")["process"]["exe"];
        assert_eq!((&exe["filesystem"], &exe["upper"]), (&json!("overlay"), &json!(upper)), "{exe:#}");
        assert_eq!(hash["body"]["sha256"], json!(sum), "{hash:#}");
    }
}
