//! Module `auth_fortress`: who tries to become a user of this host without being one.
//!
//! Invariants worth naming:
//!
//! - **A source is an address, never a whole story**: what happens to one account says nothing of another one that comes from the
//!   same address.
//! - **One attack is one alert**: its id has the source and the first failure in it, its revisions are bounded.
//! - **An attempt counts once** ([`history`]), and only if it was judged ([`attempt`]).
//! - **Nothing outlives a boot**: times are of the boot clock, and logins are of one boot.

mod attack;
pub(crate) mod attempt;
pub mod config;
mod history;
mod hits;
mod logins;
mod report;
mod sources;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bartizan_bus::event::{Auth, Body, BootId, Outcome, Process, SecurityEvent, Severity};
use minicbor::{Decode, Encode};

use self::attack::{ACCOUNT_STEPS, Attack, FAILURE_STEPS, Pace};
use self::attempt::{Attempt, Verdict};
use self::config::AuthFortressConfig;
use self::history::Noted;
use self::hits::Login;
use self::logins::{Logins, Reported};
use self::report::{Case, Proof};
use self::sources::{SavedSources, Sources, State};
use crate::detector::{Context, Description, Detector, Findings, RestoreError, RuleDescription, StateInfo};

/// Id of the module.
pub const ID: &str = "auth_fortress";
/// Many failures from one source.
pub const BRUTE_FORCE: &str = "auth_fortress.brute_force";
/// Few failures each for many users.
pub const SPRAY: &str = "auth_fortress.spray";
/// A success after failures.
pub const SUCCESS: &str = "auth_fortress.success_after_failures";

/// Between two sweeps over all sources, event time.
const SWEEP_NS: u64 = 60_000_000_000;

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Counters {
    #[n(0)]
    failures: u64,
    #[n(1)]
    successes: u64,
    #[n(2)]
    not_judged: u64,
    #[n(3)]
    excepted: u64,
    #[n(4)]
    folded: u64,
    #[n(5)]
    same_connection: u64,
    #[n(6)]
    keys_taken_back: u64,
    #[n(7)]
    attacks_over: u64,
    #[n(8)]
    logins_untold: u64,
}

/// Saved form of the module's state.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Saved {
    #[n(0)]
    sources: SavedSources,
    #[n(1)]
    logins: Logins,
    #[n(2)]
    counters: Counters,
    #[n(3)]
    now_ns: u64,
    #[n(4)]
    swept_ns: u64,
    #[n(5)]
    boot: Option<BootId>,
}

/// The module and its state.
pub struct AuthFortress {
    config: AuthFortressConfig,
    sources: Sources,
    logins: Logins,
    counters: Counters,
    /// Newest time seen, boot clock.
    now_ns: u64,
    swept_ns: u64,
    boot: Option<BootId>,
}

impl AuthFortress {
    /// With the rules that the configuration leaves on.
    pub fn new(config: &AuthFortressConfig) -> Self {
        Self {
            sources: Sources::new(config.max_sources, config.max_entries),
            logins: Logins::default(),
            counters: Counters::default(),
            now_ns: 0,
            swept_ns: 0,
            boot: None,
            config: config.clone(),
        }
    }

    fn authenticate(&mut self, auth: &Auth, event: &SecurityEvent, out: &mut Findings) {
        if self.config.exceptions.iter().any(|exception| exception.covers(auth)) {
            self.counters.excepted += 1;
            return;
        }
        let attempt = Attempt::of(auth, event);
        match attempt.verdict {
            Verdict::NotJudged => self.counters.not_judged += 1,
            Verdict::Guess | Verdict::KeyOffer => self.failure(&attempt, event.process.as_deref(), out),
            Verdict::Success | Verdict::KeySuccess => self.success(&attempt, event.process.as_deref(), out),
        }
    }

    fn failure(&mut self, attempt: &Attempt, process: Option<&Process>, out: &mut Findings) {
        let mut state = self.sources.take(&attempt.source);
        self.end_attacks(&mut state, attempt.time_ns);
        state.address = attempt.address;
        match state.history.note(attempt) {
            Noted::Counted(index) => {
                self.counters.failures += 1;
                let case = Case { attempt, process, address: state.address };
                self.judge_brute_force(&mut state, index, &case, out);
                self.judge_spray(&mut state, index, &case, out);
            }
            Noted::Folded => self.counters.folded += 1,
            Noted::SameConnection => self.counters.same_connection += 1,
            Noted::Passed => {}
        }
        self.sources.put(attempt.source.clone(), state);
    }

    fn judge_brute_force(&self, state: &mut State, index: usize, case: &Case<'_>, out: &mut Findings) {
        let rule = &self.config.brute_force;
        if !rule.enabled {
            return;
        }
        if let Some(attack) = &mut state.brute_force {
            let before = attack.failures;
            attack.add(&case.attempt.user, case.attempt.time_ns);
            if attack.passed(before, attack.failures, FAILURE_STEPS) {
                out.push(case.brute_force(attack, &state.history));
            }
            return;
        }
        let done = state.brute_force_done_ns;
        let fast = state.history.burst(index, rule.failures, rule.window.ns(), done).map(|range| (Pace::Fast, range));
        let found = fast.or_else(|| {
            let range = state.history.burst(index, rule.slow_failures, rule.slow_window.ns(), done)?;
            let since = case.attempt.time_ns.saturating_sub(rule.slow_window.ns());
            let successes = state.successes.iter().filter(|success| **success >= since).count();
            (successes <= rule.slow_max_successes).then_some((Pace::Slow, range))
        });
        state.brute_force = found.and_then(|(pace, range)| Attack::new(pace, state.history.get(range)));
        if let Some(attack) = &state.brute_force {
            out.push(case.brute_force(attack, &state.history));
        }
    }

    fn judge_spray(&self, state: &mut State, index: usize, case: &Case<'_>, out: &mut Findings) {
        let rule = &self.config.spray;
        if !rule.enabled {
            return;
        }
        if let Some(attack) = &mut state.spray {
            let before = attack.distinct();
            attack.add(&case.attempt.user, case.attempt.time_ns);
            if attack.passed(before, attack.distinct(), ACCOUNT_STEPS) {
                out.push(case.spray(attack, &state.history));
            }
            return;
        }
        let (most, done) = (rule.attempts_per_user, state.spray_done_ns);
        let spread = |users, window| state.history.spread(index, users, most, window, done);
        let fast = spread(rule.users, rule.window.ns()).map(|range| (Pace::Fast, range));
        let found = fast.or_else(|| spread(rule.slow_users, rule.slow_window.ns()).map(|range| (Pace::Slow, range)));
        state.spray = found.and_then(|(pace, range)| Attack::new(pace, state.history.get(range)));
        if let Some(attack) = &state.spray {
            out.push(case.spray(attack, &state.history));
        }
    }

    fn success(&mut self, attempt: &Attempt, process: Option<&Process>, out: &mut Findings) {
        self.counters.successes += 1;
        if !self.sources.knows(&attempt.source) {
            return;
        }
        let mut state = self.sources.take(&attempt.source);
        self.end_attacks(&mut state, attempt.time_ns);
        state.address = attempt.address;
        self.counters.keys_taken_back += state.history.take_back_keys(attempt) as u64;
        state.successes.push(attempt.time_ns);
        let beyond = state.successes.len().saturating_sub(self.config.brute_force.slow_max_successes + 1);
        state.successes.drain(..beyond);
        // Whoever holds a key did not come by it by guessing passwords, and may be another one behind the same address.
        if attempt.verdict == Verdict::Success && !self.judge_success(&mut state, attempt, process, out) {
            state.history.answer(&attempt.user);
        }
        self.sources.put(attempt.source.clone(), state);
    }

    /// Whether the success follows from too many failures. If so these stand: whoever guessed a password comes back with it.
    fn judge_success(&mut self, state: &mut State, attempt: &Attempt, process: Option<&Process>, out: &mut Findings) -> bool {
        let rule = &self.config.success_after_failures;
        if !rule.enabled {
            return false;
        }
        let since = attempt.time_ns.saturating_sub(rule.window.ns());
        let failures: Vec<_> = state.history.unanswered(&attempt.user, since).map(|failure| failure.event).collect();
        let sprayed = state.spray.as_ref().is_some_and(|spray| spray.tries(&attempt.user));
        if failures.len() < rule.failures && !sprayed {
            return false;
        }
        match state.hits.note(attempt, rule.window.ns()) {
            Login::New => {}
            Login::Same => {
                self.counters.folded += 1;
                return true;
            }
            Login::OneMore => {
                self.counters.logins_untold += 1;
                return true;
            }
        }
        let case = Case { attempt, process, address: state.address };
        // The attack is told first, now with this account in it: whoever joins the two finds it there.
        if let Some(attack) = &mut state.brute_force
            && attack.hit(&attempt.user, attempt.time_ns)
        {
            out.push(case.brute_force(attack, &state.history));
        }
        if let Some(attack) = &mut state.spray
            && attack.hit(&attempt.user, attempt.time_ns)
        {
            out.push(case.spray(attack, &state.history));
        }
        let (event, window_ns) = (attempt.event, rule.window.ns());
        let proof = Proof { event, failures: failures.len() as u64, sprayed, window_ns, session: false };
        out.push(case.success(&proof, failures));
        let reported = Reported {
            login: attempt.login,
            event: attempt.event,
            failures: proof.failures,
            sprayed,
            source: attempt.source.clone(),
            user: attempt.user.clone(),
        };
        self.logins.add(reported);
        true
    }

    /// A session of a login that was told: the process at which it opened owns whatever it does.
    fn session(&mut self, auth: &Auth, event: &SecurityEvent, out: &mut Findings) {
        let Some(Reported { login, event: proved, failures, sprayed, source, user }) = self.logins.take(auth.login) else { return };
        let attempt = Attempt { login, source, user, ..Attempt::of(auth, event) };
        let case = Case { attempt: &attempt, process: event.process.as_deref(), address: attempt.address };
        let window_ns = self.config.success_after_failures.window.ns();
        let proof = Proof { event: proved, failures, sprayed, window_ns, session: true };
        out.push(case.success(&proof, vec![proved]));
    }

    fn end_attacks(&mut self, state: &mut State, now_ns: u64) {
        self.counters.attacks_over += end_attacks(&self.config, state, now_ns);
    }

    /// Forgets what no window reaches any more.
    fn sweep(&mut self) {
        let Self { config, sources, counters, now_ns, swept_ns, .. } = self;
        if now_ns.saturating_sub(*swept_ns) < SWEEP_NS {
            return;
        }
        *swept_ns = *now_ns;
        let (brute_force, spray) = (&config.brute_force, &config.spray);
        let longest = [brute_force.window, brute_force.slow_window, spray.window, spray.slow_window, config.success_after_failures.window];
        let keep = longest.iter().map(|period| period.ns()).max().unwrap_or_default();
        sources.sweep(|state| {
            counters.attacks_over += end_attacks(config, state, *now_ns);
            state.history.forget(now_ns.saturating_sub(keep));
            state.hits.forget(*now_ns, config.success_after_failures.window.ns());
        });
    }

    fn enter_boot(&mut self, boot: BootId) {
        if self.boot.is_some_and(|known| known != boot) {
            self.sources.clear();
            self.logins = Logins::default();
            (self.now_ns, self.swept_ns) = (0, 0);
        }
        self.boot = Some(boot);
    }
}

/// Ends the attacks of a source that was quiet long enough; how many ended.
fn end_attacks(config: &AuthFortressConfig, state: &mut State, now_ns: u64) -> u64 {
    let AuthFortressConfig { brute_force, spray, .. } = config;
    let mut ended = 0;
    let mut end = |attack: &mut Option<Attack>, quiet: u64, slow: u64, done: &mut u64| {
        let over = |attack: &mut Attack| {
            let quiet = match attack.pace {
                Pace::Fast => quiet,
                Pace::Slow => quiet.max(slow),
            };
            attack.over(now_ns, quiet)
        };
        if let Some(attack) = attack.take_if(over) {
            *done = attack.last_ns;
            ended += 1;
        }
    };
    end(&mut state.brute_force, brute_force.quiet.ns(), brute_force.slow_window.ns(), &mut state.brute_force_done_ns);
    end(&mut state.spray, spray.quiet.ns(), spray.slow_window.ns(), &mut state.spray_done_ns);
    ended
}

impl Detector for AuthFortress {
    fn describe(&self) -> Description {
        let guessing: &[(&str, &str)] = &[("TA0006", "T1110.001")];
        Description {
            id: ID,
            title: "Watches who proves to be whom, and who fails to",
            rules: vec![
                RuleDescription {
                    id: BRUTE_FORCE,
                    title: "One source fails to log in again and again",
                    attack: guessing,
                    severity: Severity::High,
                    knobs: &["enabled", "failures", "window", "slow_failures", "slow_window", "slow_max_successes", "quiet"],
                },
                RuleDescription {
                    id: SPRAY,
                    title: "One source tries many users a few times each",
                    attack: &[("TA0006", "T1110.003")],
                    severity: Severity::High,
                    knobs: &["enabled", "users", "attempts_per_user", "window", "slow_users", "slow_window", "quiet"],
                },
                RuleDescription {
                    id: SUCCESS,
                    title: "A source proves to be a user whom it had failed to be before",
                    attack: &[("TA0006", "T1110.001"), ("TA0006", "T1110.003"), ("TA0001", "T1078"), ("TA0004", "T1078")],
                    severity: Severity::High,
                    knobs: &["enabled", "failures", "window"],
                },
            ],
            kinds: &["auth.authenticate", "auth.session_open"],
        }
    }

    fn observe(&mut self, event: &SecurityEvent, _context: &Context<'_>, out: &mut Findings) {
        if let Some(process) = &event.process {
            self.enter_boot(process.exec_id.boot);
        }
        self.now_ns = self.now_ns.max(event.time.boot_ns);
        match &event.body {
            Body::Authenticate(auth) => self.authenticate(auth, event, out),
            Body::SessionOpen(auth) if event.outcome == Outcome::Success => self.session(auth, event, out),
            // The description asks for these two kinds alone.
            _ => {}
        }
    }

    fn tick(&mut self, event: &SecurityEvent, _context: &Context<'_>, _out: &mut Findings) {
        self.now_ns = self.now_ns.max(event.time.boot_ns);
        self.sweep();
    }

    fn state(&self) -> StateInfo {
        let Counters { failures, successes, not_judged, excepted, folded, same_connection, keys_taken_back, attacks_over, logins_untold } =
            self.counters;
        let mut tables = self.sources.tables();
        tables.push(self.logins.table());
        StateInfo {
            tables,
            counters: BTreeMap::from([
                ("failures", failures),
                ("successes", successes),
                ("not_judged", not_judged),
                ("excepted", excepted),
                ("folded_pam_and_log", folded),
                ("folded_same_connection", same_connection),
                ("keys_taken_back", keys_taken_back),
                ("attacks_over", attacks_over),
                ("logins_untold", logins_untold),
            ]),
        }
    }

    fn save(&self) -> Vec<u8> {
        let Self { config: _, sources, logins, counters, now_ns, swept_ns, boot } = self;
        let saved = Saved {
            sources: sources.save(),
            logins: logins.clone(),
            counters: counters.clone(),
            now_ns: *now_ns,
            swept_ns: *swept_ns,
            boot: *boot,
        };
        match minicbor::to_vec(&saved) {
            Ok(bytes) => bytes,
            // Writing to memory has no failing operation, and no field has a failing encoder.
            Err(error) => unreachable!("encoding into memory failed: {error}"),
        }
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let Saved { sources, logins, counters, now_ns, swept_ns, boot } = minicbor::decode(bytes).map_err(RestoreError::cbor(ID))?;
        self.sources = Sources::restore(sources, self.config.max_sources, self.config.max_entries);
        (self.logins, self.counters, self.now_ns, self.swept_ns, self.boot) = (logins, counters, now_ns, swept_ns, boot);
        Ok(())
    }
}
