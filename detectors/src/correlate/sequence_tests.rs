//! The one pattern, step by step and with the real detectors, and everything that looks like it.

use bartizan_bus::event::{Alert, AlertId, Confidence, Entity, EventId, EventTime, ExecId, PatternMatch, Severity, Status};
use proptest::prelude::*;

use super::config::CorrelateConfig;
use super::sequence::{Correlator, match_id};
use crate::period::Period;
use crate::testing::{Chain, chain, exec_id, login_id};
use crate::{auth_fortress, runtime_watcher};

const PATTERN: &str = "correlate.brute_force_to_shell";
const SECOND: i64 = 1_000_000_000;

/// Where an alert stands: its trigger in EVENTS, which is also its second.
fn alert(number: u8, rule: &str, trigger: u64) -> Alert {
    Alert {
        id: AlertId([number; 16]),
        revision: 1,
        time: EventTime { boot_ns: trigger, wall_ns: i64::try_from(trigger).expect("small") * SECOND },
        host: "testhost".into(),
        detector: rule.split('.').next().expect("a module").into(),
        rule: rule.into(),
        title: format!("alert {number}"),
        severity: Severity::High,
        confidence: Confidence::High,
        attack: Vec::new(),
        entities: Vec::new(),
        evidence: Vec::new(),
        trigger_seq: trigger,
        lineage: Vec::new(),
        explanation: String::new(),
        next_steps: Vec::new(),
        status: Status::Open,
        login: None,
    }
}

fn about(peer: &str, account: &str) -> Vec<Entity> {
    vec![Entity::Host { ip: peer.parse().expect("ip") }, Entity::Account { name: account.into() }]
}

fn process(pid: u32) -> ExecId {
    exec_id(pid, 1)
}

fn lineage(pids: &[u32]) -> Vec<bartizan_bus::event::LineageEntry> {
    pids.iter().map(|pid| crate::lineage::entry(&bartizan_bus::event::Process::of(process(*pid)), false)).collect()
}

fn guessing(trigger: u64) -> Alert {
    Alert { entities: about("203.0.113.9", "alice"), ..alert(1, auth_fortress::BRUTE_FORCE, trigger) }
}

fn success(trigger: u64) -> Alert {
    Alert {
        entities: about("203.0.113.9", "alice"),
        login: Some(login_id(7)),
        lineage: lineage(&[60, 50, 1]),
        ..alert(2, auth_fortress::SUCCESS, trigger)
    }
}

fn shell(trigger: u64) -> Alert {
    Alert { login: Some(login_id(7)), lineage: lineage(&[90, 61, 60, 50, 1]), ..alert(3, runtime_watcher::REVERSE_SHELL, trigger) }
}

fn found(alerts: &[Alert]) -> Vec<PatternMatch> {
    found_with(&CorrelateConfig::default(), alerts)
}

fn found_with(config: &CorrelateConfig, alerts: &[Alert]) -> Vec<PatternMatch> {
    let mut correlator = Correlator::new(config);
    alerts.iter().zip(1..).flat_map(|(alert, seq)| correlator.observe(seq, alert)).collect()
}

#[test]
fn guess_login_shell_is_one_match_with_its_timeline() {
    let matches = found(&[guessing(10), success(20), shell(30)]);
    let [found] = &matches[..] else { panic!("{matches:?}") };
    assert_eq!((found.id, found.login), (match_id(PATTERN, &login_id(7)), Some(login_id(7))));
    assert_eq!((found.severity, found.confidence, found.time.boot_ns), (Severity::Critical, Confidence::High, 30));
    assert_eq!(found.title, "Guessed password, login, reverse shell: alice from 203.0.113.9");
    let steps: Vec<_> = found.steps.iter().map(|step| (step.name.as_str(), step.alert_seq, step.trigger_seq, step.revision)).collect();
    assert_eq!(steps, [("guessing", 1, 10, 1), ("success", 2, 20, 1), ("shell", 3, 30, 1)]);
    assert_eq!(found.entities, about("203.0.113.9", "alice"));
}

#[test]
fn a_spray_does_as_well_as_a_brute_force_and_both_make_one_match() {
    let spray = Alert { rule: auth_fortress::SPRAY.into(), id: AlertId([9; 16]), ..guessing(11) };
    assert_eq!(found(&[spray.clone(), success(20), shell(30)]).len(), 1);
    let both = found(&[guessing(10), spray, success(20), shell(30)]);
    assert_eq!((both.len(), both[0].steps[0].trigger_seq), (1, 10));
}

#[test]
fn revisions_and_more_shells_make_no_second_match() {
    let rev = |alert: Alert, revision, trigger| Alert { revision, trigger_seq: trigger, ..alert };
    let second = Alert { id: AlertId([8; 16]), ..shell(40) };
    let alerts = [
        guessing(10),
        rev(guessing(10), 2, 20),
        success(20),
        rev(success(20), 2, 21),
        shell(30),
        rev(shell(30), 2, 31),
        second,
        success(20),
    ];
    let matches = found(&alerts);
    assert_eq!(matches.len(), 1);
    let steps: Vec<_> = matches[0].steps.iter().map(|step| (step.revision, step.alert_seq, step.trigger_seq)).collect();
    assert_eq!(steps, [(2, 2, 10), (2, 4, 20), (1, 5, 30)]);
}

#[test]
fn an_account_that_a_later_revision_names_is_one_that_was_tried() {
    let first = Alert { entities: about("203.0.113.9", "root"), ..guessing(10) };
    assert!(found(&[first.clone(), success(20), shell(30)]).is_empty(), "alice was not tried");
    let hit = Alert { revision: 2, trigger_seq: 20, ..guessing(10) };
    assert_eq!(found(&[first, hit.clone(), success(20), shell(30)]).len(), 1);
    // Retention took the first revision: the second says that there was one before it.
    assert_eq!(found(&[hit, success(20), shell(30)]).len(), 1);
}

#[test]
fn the_same_address_alone_joins_nothing() {
    // Bob logs in from the guesser's address after failures of his own, which is another login; the shell is in his.
    let other = Alert { login: Some(login_id(8)), lineage: lineage(&[91, 71, 70, 50, 1]), ..shell(30) };
    assert!(found(&[guessing(10), success(20), other.clone()]).is_empty());
    let bob = Alert {
        entities: about("203.0.113.9", "bob"),
        login: Some(login_id(8)),
        id: AlertId([6; 16]),
        lineage: lineage(&[70, 50]),
        ..success(21)
    };
    assert!(found(&[guessing(10), success(20), bob, other]).is_empty(), "bob was not among the guessed");
    let elsewhere = Alert { entities: about("198.51.100.1", "alice"), ..success(20) };
    assert!(found(&[guessing(10), elsewhere, shell(30)]).is_empty(), "alice from another address");
    let outside = Alert { login: None, lineage: lineage(&[90, 50, 1]), ..shell(30) };
    assert!(found(&[guessing(10), success(20), outside]).is_empty(), "a shell of no login below the same server");
}

#[test]
fn a_shell_below_the_session_s_owner_is_in_the_login_whatever_its_own_login_is() {
    // sudo opened a session within the session.
    let nested = Alert { login: Some(login_id(9)), ..shell(30) };
    assert_eq!(found(&[guessing(10), success(20), nested]).len(), 1);
    // Keyboard-interactive: a forked child answered, the session opened at its parent.
    let child = Alert { lineage: lineage(&[65, 60, 50]), ..success(20) };
    let session = Alert { revision: 2, trigger_seq: 21, ..success(20) };
    let unknown = Alert { login: None, ..shell(30) };
    assert!(found(&[guessing(10), child.clone(), unknown.clone()]).is_empty());
    assert_eq!(found(&[guessing(10), child, session, unknown]).len(), 1);
}

#[test]
fn a_local_guesser_is_joined_by_the_user_who_guessed() {
    let by = |uid: u32| vec![Entity::User { uid, name: Some("eve".into()) }, Entity::Account { name: "root".into() }];
    let (guessing, success) = (Alert { entities: by(1000), ..guessing(10) }, Alert { entities: by(1000), ..success(20) });
    let matches = found(&[guessing.clone(), success, shell(30)]);
    assert_eq!(matches[0].title, "Guessed password, login, reverse shell: root by eve");
    assert!(found(&[guessing, Alert { entities: by(1001), ..self::success(20) }, shell(30)]).is_empty());
}

#[test]
fn the_window_is_from_the_end_of_a_step_to_the_beginning_of_the_next() {
    let config = CorrelateConfig { window: Period::secs(60), ..CorrelateConfig::default() };
    let at = |first, second, third| found_with(&config, &[guessing(first), success(second), shell(third)]).len();
    assert_eq!([at(10, 70, 130), at(10, 71, 130), at(10, 70, 131)], [1, 0, 0]);
    // An attack that goes on ends with its newest revision.
    let going_on = Alert { revision: 3, time: success(500).time, trigger_seq: 500, ..guessing(10) };
    assert_eq!(found_with(&config, &[guessing(10), going_on, success(500), shell(510)]).len(), 1);
}

#[test]
fn weak_steps_make_no_critical_match() {
    let weak = Alert { confidence: Confidence::Low, ..success(20) };
    let matches = found(&[guessing(10), weak, shell(30)]);
    assert_eq!((matches[0].severity, matches[0].confidence), (Severity::High, Confidence::Low));
}

#[test]
fn tables_have_bounds_and_old_alerts_go_uncounted() {
    let config = CorrelateConfig { max_alerts: 16, max_matches: 16, ..CorrelateConfig::default() };
    let mut correlator = Correlator::new(&config);
    let mut seq = 0;
    let mut take = |alert: Alert| {
        seq += 1;
        correlator.observe(seq, &alert).len()
    };
    let mut matches = 0;
    for number in 0u8..40 {
        let login = Some(login_id(100 + u64::from(number)));
        let id = |step: u8| {
            let mut id = [number; 16];
            id[0] = step;
            AlertId(id)
        };
        let at = 10 * u64::from(number);
        matches += take(Alert { id: id(1), ..guessing(at + 1) });
        matches += take(Alert { id: id(2), login, ..success(at + 2) });
        matches += take(Alert { id: id(3), login, ..shell(at + 3) });
    }
    assert_eq!(matches, 40);
    let far = Alert { id: AlertId([77; 16]), ..guessing(10_000_000) };
    take(far);
    let state = correlator.state();
    let sizes: Vec<_> = state.tables.iter().map(|table| (table.name, table.entries, table.evicted)).collect();
    assert_eq!(sizes, [("guessing", 1, 24), ("success", 16, 24), ("shell", 16, 24), ("told", 16, 24)]);
    assert_eq!((state.counters["alerts"], state.counters["matches"]), (121, 40));
}

#[test]
fn the_real_detectors_alerts_make_the_match_and_its_benign_twins_none() {
    let matches = |kind| found(&chain(kind).1);
    let whole = matches(Chain::Whole);
    assert_eq!(whole.len(), 1, "{whole:?}");
    let names: Vec<_> = whole[0].steps.iter().map(|step| step.rule.as_str()).collect();
    assert_eq!(names, [auth_fortress::BRUTE_FORCE, auth_fortress::SUCCESS, runtime_watcher::REVERSE_SHELL]);
    assert!(whole[0].steps.is_sorted_by_key(|step| step.trigger_seq));
    assert_eq!(whole[0].attack.len(), 4, "{:?}", whole[0].attack);
    for kind in [Chain::ShellFirst, Chain::OtherLogin, Chain::TwoTypos] {
        assert_eq!(matches(kind).len(), 0, "{kind:?}");
    }
}

fn orders() -> impl Strategy<Value = Vec<usize>> {
    Just(vec![0, 1, 2]).prop_shuffle()
}

proptest! {
    /// Whatever order the alerts come in: the match follows from the order of their triggers alone, and is the same one.
    #[test]
    fn the_match_follows_from_the_triggers_not_from_the_arrival(triggers in orders(), arrival in orders(), repeat in any::<bool>()) {
        let at = |step: usize| 10 * (triggers[step] as u64 + 1);
        let steps = [guessing(at(0)), success(at(1)), shell(at(2))];
        let mut alerts: Vec<Alert> = arrival.iter().map(|step| steps[*step].clone()).collect();
        if repeat {
            alerts.extend(alerts.clone());
        }
        let matches = found(&alerts);
        if triggers == [0, 1, 2] {
            prop_assert_eq!(matches.len(), 1);
            prop_assert_eq!(matches[0].id, match_id(PATTERN, &login_id(7)));
            let seqs: Vec<u64> = matches[0].steps.iter().map(|step| step.trigger_seq).collect();
            prop_assert_eq!(seqs, [10, 20, 30]);
        } else {
            prop_assert!(matches.is_empty());
        }
    }

    /// Any alerts of any logins: a match never mixes two, and none is told twice.
    #[test]
    fn a_match_is_of_one_login_and_told_once(
        alerts in prop::collection::vec((0u8..3, 0u64..3, 0u64..50, 0u8..2, 1u32..3), 0..60)
    ) {
        let alerts: Vec<Alert> = alerts.into_iter().zip(0u8..).map(|((kind, login, trigger, account, revision), number)| {
            let base = match kind { 0 => guessing(trigger), 1 => success(trigger), _ => shell(trigger) };
            let name = format!("user{account}");
            let mut id = [number % 2; 16];
            (id[0], id[1], id[2]) = (kind, u8::try_from(login).expect("small"), account);
            Alert {
                id: AlertId(id),
                revision,
                login: (kind != 0).then(|| login_id(login)),
                entities: if kind == 2 { Vec::new() } else { about("203.0.113.9", &name) },
                lineage: lineage(&[u32::try_from(login).expect("small") + 60]),
                ..base
            }
        }).collect();
        let matches = found(&alerts);
        let mut logins: Vec<EventId> = matches.iter().filter_map(|found| found.login).collect();
        logins.sort();
        logins.dedup();
        prop_assert_eq!(logins.len(), matches.len());
        for found in &matches {
            prop_assert!(found.steps.is_sorted_by(|a, b| a.trigger_seq < b.trigger_seq));
            for step in &found.steps[1..] {
                prop_assert_eq!(alerts[usize::try_from(step.alert_seq).expect("small") - 1].login, found.login);
            }
        }
    }
}
