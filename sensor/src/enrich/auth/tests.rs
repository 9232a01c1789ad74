use bartizan_bus::event::BootId;
use proptest::prelude::*;

use super::*;

fn caller(pid: u32, ancestors: &[u32]) -> Caller {
    Caller { who: (pid, u64::from(pid)), ancestors: ancestors.iter().map(|pid| (*pid, u64::from(*pid))).collect(), euid: 0 }
}

fn id(number: u32) -> EventId {
    EventId::from_kernel(BootId(1), 1, 0, number)
}

fn pam(handle: u64, step: PamStep) -> Pam {
    Pam { handle, step, truncated: false }
}

fn start(handle: u64, user: &str) -> Pam {
    pam(handle, PamStep::Start { service: Some("sshd".into()), user: Some(user.into()), result: 0 })
}

fn item(handle: u64, item: Item, value: &str) -> Pam {
    pam(handle, PamStep::Item { item, value: Some(value.into()) })
}

fn verdict(handle: u64, call: PamVerdict, result: i32) -> Pam {
    pam(handle, PamStep::Verdict { call, result })
}

fn auth(step: Option<Step>) -> Auth {
    match step.expect("a step").body {
        Body::AuthStart(auth)
        | Body::Authenticate(auth)
        | Body::Account(auth)
        | Body::SessionOpen(auth)
        | Body::SessionClose(auth)
        | Body::InvalidUser(auth) => auth,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_step_of_a_handle_knows_what_was_set_before() {
    let mut all = Transactions::default();
    let sshd = caller(5, &[]);
    let login = auth(all.pam(start(9, "root"), &sshd, id(1))).login;
    assert_eq!(login, id(1));
    assert_eq!(all.pam(item(9, Item::Rhost, "192.0.2.7"), &sshd, id(2)), None);
    assert_eq!(all.pam(item(9, Item::Tty, "ssh"), &sshd, id(3)), None);
    let failed = all.pam(verdict(9, PamVerdict::Authenticate, 7), &sshd, id(4));
    assert_eq!(failed.as_ref().map(|step| step.outcome), Some(Outcome::Failure));
    let failed = auth(failed);
    assert_eq!((failed.login, failed.user.as_deref(), failed.pam_result), (login, Some("root"), Some(7)));
    assert_eq!((failed.peer_ip, failed.tty.as_deref()), ("192.0.2.7".parse().ok(), Some("ssh")));
    let open = all.pam(verdict(9, PamVerdict::SessionOpen, 0), &sshd, id(5)).expect("a step");
    assert_eq!(open.logs_in, Some(login));
    assert_eq!(all.pam(pam(9, PamStep::End), &sshd, id(6)), None);
    assert_ne!(auth(all.pam(start(9, "bob"), &sshd, id(7))).login, login, "another transaction at the same address");
}

#[test]
fn a_child_has_its_parent_s_handle_and_changes_only_its_own() {
    let mut all = Transactions::default();
    let (monitor, child) = (caller(5, &[]), caller(6, &[5, 1]));
    all.pam(start(9, "root"), &monitor, id(1));
    all.pam(item(9, Item::User, "eve"), &child, id(2));
    let of_child = auth(all.pam(verdict(9, PamVerdict::Authenticate, 7), &child, id(3)));
    assert_eq!((of_child.login, of_child.user.as_deref()), (id(1), Some("eve")));
    all.forget((6, 6));
    let of_monitor = auth(all.pam(verdict(9, PamVerdict::Account, 0), &monitor, id(4)));
    assert_eq!((of_monitor.login, of_monitor.user.as_deref()), (id(1), Some("root")));
    // The same address in a process that has nothing to do with it.
    let stranger = auth(all.pam(verdict(9, PamVerdict::Authenticate, 7), &caller(7, &[1]), id(5)));
    assert_eq!((stranger.login, stranger.user), (id(5), None));
}

#[test]
fn what_pam_told_is_not_told_again_and_the_rest_is() {
    let mut all = Transactions::default();
    let sshd = caller(5, &[]);
    let line = |words: &str| format!("{words} from 192.0.2.7 port 4711 ssh2");
    let invalid = auth(all.sshd_log("Invalid user bob from 192.0.2.7 port 4711", false, &sshd, id(1)));
    assert!(invalid.invalid_user && invalid.login == id(1));
    let begun = auth(all.pam(start(9, "bob"), &sshd, id(2)));
    assert!(begun.invalid_user && begun.login == id(1) && begun.source == AuthSource::Pam, "one login, whoever speaks");
    all.pam(verdict(9, PamVerdict::Authenticate, 10), &sshd, id(3));
    assert_eq!(all.sshd_log(&line("Failed password for invalid user bob"), false, &sshd, id(4)), None);
    // PAM was not asked: an empty password, say.
    assert!(all.sshd_log(&line("Failed password for invalid user bob"), false, &sshd, id(5)).is_some());
    assert_eq!(all.sshd_log(&line("Failed keyboard-interactive/pam for invalid user bob"), false, &sshd, id(6)), None);
    let key = auth(all.sshd_log(&line("Failed publickey for invalid user bob"), false, &sshd, id(7)));
    assert_eq!((key.login, key.method.as_deref()), (id(1), Some("publickey")));
    assert_eq!(all.said_again(), 2);
}

#[test]
fn a_server_without_pam_logs_in_by_its_log() {
    let mut all = Transactions::default();
    let step = all.sshd_log("Accepted password for root from 192.0.2.7 port 4711 ssh2", false, &caller(5, &[]), id(1)).expect("a step");
    assert_eq!((step.outcome, step.logs_in), (Outcome::Success, Some(id(1))));
    let forged = Caller { euid: 1000, ..caller(6, &[]) };
    all.pam(start(9, "root"), &forged, id(2));
    let step = all.pam(verdict(9, PamVerdict::SessionOpen, 0), &forged, id(3)).expect("a step");
    assert_eq!(step.logs_in, None, "a session that no root opened is none");
}

#[test]
fn thousands_of_handles_of_a_user_do_not_cost_root_s_login() {
    let mut all = Transactions::default();
    let sshd = caller(5, &[]);
    let login = auth(all.pam(start(9, "root"), &sshd, id(1))).login;
    let user = Caller { euid: 1000, ..caller(6, &[]) };
    for number in 0..3 * TRANSACTIONS as u32 {
        all.pam(start(1000 + u64::from(number), "x"), &user, id(2 + number));
    }
    assert_eq!(auth(all.pam(verdict(9, PamVerdict::Authenticate, 7), &sshd, id(99_999))).login, login);
    assert_eq!(all.table().0, TRANSACTIONS);
}

proptest! {
    #[test]
    fn the_bound_holds_and_nothing_panics(steps in proptest::collection::vec((1_u32..9000, 0_u64..3, 0_u8..6), 0..12_000)) {
        let mut all = Transactions::default();
        for (number, (pid, handle, step)) in (0..).zip(steps) {
            let caller = Caller { euid: pid % 2, ..caller(pid, &[pid / 2, 1]) };
            let _ = match step {
                0 => all.pam(start(handle, "u"), &caller, id(number)),
                1 => all.pam(item(handle, Item::User, "x"), &caller, id(number)),
                2 => all.pam(verdict(handle, PamVerdict::Authenticate, 7), &caller, id(number)),
                3 => all.pam(pam(handle, PamStep::End), &caller, id(number)),
                4 => all.sshd_log("Failed password for root from 192.0.2.7 port 4711 ssh2", false, &caller, id(number)),
                _ => { all.forget(caller.who); None }
            };
            prop_assert!(all.open.len() <= TRANSACTIONS);
            prop_assert!(all.arrived.iter().all(|arrived| arrived.len() <= 4 * TRANSACTIONS + 1));
        }
    }
}
