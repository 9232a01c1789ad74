//! Module `network_guardian`: who looks for ways in and out over the network.
//!
//! Invariants worth naming:
//!
//! - A failure or a closed port is evidence; what works is none, and what worked before and fails now is none either.
//! - A scan is one alert with a bounded number of revisions, however large it is, and a later scan is another.
//! - Whatever a source address says is a claim, unless it completed a connection. The alerts say which.

mod attempts;
mod config;
mod episode;
mod hammering;
mod origin;
mod packets;
mod port_set;
mod raw_out;
mod recent;
mod report;
mod scan_in;
mod scan_out;
mod table;

#[cfg(test)]
mod hammering_tests;
#[cfg(test)]
mod made_up;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod scan_in_tests;
#[cfg(test)]
mod scan_out_tests;

use bartizan_bus::event::{Body, SecurityEvent, Severity};
use minicbor::{Decode, Encode};

pub use self::config::{
    HealthChecker, LoginHammeringConfig, NetworkGuardianConfig, PortScanInConfig, PortScanOutConfig, RawScanOutConfig, SweepOutConfig,
};
pub use self::hammering::RULE as LOGIN_HAMMERING;
pub use self::raw_out::RULE as RAW_SCAN_OUT;
pub use self::scan_in::RULE as PORT_SCAN_IN;
pub use self::scan_out::{PORT_SCAN as PORT_SCAN_OUT, SWEEP as SWEEP_OUT};
use crate::detector::{Context, Description, Detector, Findings, RestoreError, RuleDescription, StateInfo};
use hammering::LoginHammering;
use packets::Packets;
use raw_out::RawScanOut;
use scan_in::PortScanIn;
use scan_out::ScanOut;

/// Id of the module.
pub const ID: &str = "network_guardian";

/// Saved form.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct Saved {
    #[n(0)]
    boot: Option<[u8; 4]>,
    #[n(1)]
    scan_in: Option<scan_in::Saved>,
    #[n(2)]
    scan_out: scan_out::Saved,
    #[n(3)]
    raw_out: Option<raw_out::Saved>,
    #[n(4)]
    hammering: Option<hammering::Saved>,
}

/// The module: its rules, each with a state of its own.
pub struct NetworkGuardian {
    config: NetworkGuardianConfig,
    /// What event ids of the present boot begin with.
    boot: Option<[u8; 4]>,
    scan_in: Option<PortScanIn>,
    scan_out: ScanOut,
    raw_out: Option<RawScanOut>,
    hammering: Option<LoginHammering>,
}

impl NetworkGuardian {
    /// With the rules that the configuration leaves on.
    pub fn new(config: &NetworkGuardianConfig) -> Self {
        Self {
            boot: None,
            scan_in: config.port_scan_in.enabled.then(|| PortScanIn::new(config)),
            scan_out: ScanOut::new(config),
            raw_out: config.raw_scan_out.enabled.then(|| RawScanOut::new(config)),
            hammering: config.login_hammering.enabled.then(|| LoginHammering::new(config)),
            config: config.clone(),
        }
    }

    /// Boot time begins anew with a boot, and so does all that is counted by it.
    fn enter_boot(&mut self, event: &SecurityEvent) {
        let mut boot = [0; 4];
        boot.copy_from_slice(&event.id.0[..4]);
        if self.boot.is_some_and(|known| known != boot) {
            self.scan_in.iter_mut().for_each(PortScanIn::clear);
            self.scan_out.clear();
            self.raw_out.iter_mut().for_each(RawScanOut::clear);
            self.hammering.iter_mut().for_each(LoginHammering::clear);
        }
        self.boot = Some(boot);
    }
}

impl Detector for NetworkGuardian {
    fn describe(&self) -> Description {
        Description {
            id: ID,
            title: "Watches for scans into and out of this host, and for knocking at its logins",
            rules: vec![
                RuleDescription {
                    id: PORT_SCAN_IN,
                    title: "A source probes many ports of this host",
                    attack: &[("TA0043", "T1595"), ("TA0007", "T1046")],
                    severity: Severity::Medium,
                    knobs: &["enabled", "ports", "window", "slow_ports", "slow_window", "max_new_alerts", "max_sources", "max_scans"],
                },
                RuleDescription {
                    id: PORT_SCAN_OUT,
                    title: "A program here tries many ports of a host",
                    attack: &[("TA0007", "T1046")],
                    severity: Severity::High,
                    knobs: &["enabled", "ports", "window", "slow_ports", "slow_window", "min_failed_percent", "max_targets", "max_scans"],
                },
                RuleDescription {
                    id: SWEEP_OUT,
                    title: "A program here tries one port of many hosts",
                    attack: &[("TA0007", "T1018"), ("TA0007", "T1046")],
                    severity: Severity::High,
                    knobs: &["enabled", "hosts", "window", "slow_hosts", "slow_window", "min_failed_percent", "max_targets", "max_scans"],
                },
                RuleDescription {
                    id: RAW_SCAN_OUT,
                    title: "A host answers to packets that no socket here sent",
                    attack: &[("TA0007", "T1046")],
                    severity: Severity::Medium,
                    knobs: &["enabled", "answers", "window", "max_sources"],
                },
                RuleDescription {
                    id: LOGIN_HAMMERING,
                    title: "A source connects to login services again and again without logging in",
                    attack: &[("TA0006", "T1110.001")],
                    severity: Severity::Medium,
                    knobs: &["enabled", "connections", "window", "grace", "max_success_percent", "ports", "services", "max_sources"],
                },
            ],
            kinds: &["network.connect", "network.accept", "network.probe", "auth.authenticate", "auth.session_open"],
        }
    }

    fn observe(&mut self, event: &SecurityEvent, context: &Context<'_>, out: &mut Findings) {
        self.enter_boot(event);
        let Self { config, boot: _, scan_in, scan_out, raw_out, hammering } = self;
        match &event.body {
            Body::Connect(connect) => {
                if let Some(rule) = scan_in {
                    rule.connected(event, &connect.socket);
                }
                scan_out.connected(event, connect, config, context, out);
            }
            Body::Accept(accept) => {
                if let Some(rule) = scan_in {
                    rule.accepted(event, &accept.socket, config, out);
                }
                if let Some(rule) = hammering {
                    rule.accepted(event, &accept.socket, config, context, out);
                }
            }
            Body::Probe(probe) => match packets::read(probe, config.ephemeral_ports) {
                Packets::Questions { way, ports, aside } => {
                    if let Some(rule) = scan_in {
                        rule.probed(event, probe, (way, &ports, aside), config, out);
                    }
                }
                Packets::Answers => {
                    if let Some(rule) = raw_out {
                        rule.answered(event, probe, config, out);
                    }
                }
            },
            // Anybody may call libpam and name any remote host: only root's services are believed.
            Body::Authenticate(auth) | Body::SessionOpen(auth) if event.process.as_ref().is_none_or(|process| process.euid == 0) => {
                if let Some(rule) = hammering {
                    rule.authenticated(event, auth);
                }
            }
            // The rest is not asked for: `describe`.
            _ => {}
        }
    }

    fn tick(&mut self, event: &SecurityEvent, context: &Context<'_>, out: &mut Findings) {
        self.enter_boot(event);
        if let Some(rule) = &mut self.scan_in {
            rule.tick(event, out);
        }
        self.scan_out.tick(event, out);
        if let Some(rule) = &mut self.raw_out {
            rule.tick(event, out);
        }
        if let Some(rule) = &mut self.hammering {
            rule.tick(event, context, out);
        }
    }

    fn state(&self) -> StateInfo {
        let mut state = StateInfo::default();
        self.scan_in.iter().for_each(|rule| rule.state(&mut state));
        self.scan_out.state(&mut state);
        self.raw_out.iter().for_each(|rule| rule.state(&mut state));
        self.hammering.iter().for_each(|rule| rule.state(&mut state));
        state
    }

    fn save(&self) -> Vec<u8> {
        let saved = Saved {
            boot: self.boot,
            scan_in: self.scan_in.as_ref().map(PortScanIn::save),
            scan_out: self.scan_out.save(),
            raw_out: self.raw_out.as_ref().map(RawScanOut::save),
            hammering: self.hammering.as_ref().map(LoginHammering::save),
        };
        match minicbor::to_vec(&saved) {
            Ok(bytes) => bytes,
            // Writing to memory has no failing operation, and no field has a failing encoder.
            Err(error) => unreachable!("encoding into memory failed: {error}"),
        }
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let Saved { boot, scan_in, scan_out, raw_out, hammering } = minicbor::decode(bytes).map_err(RestoreError::cbor(ID))?;
        self.boot = boot;
        if let (Some(rule), Some(saved)) = (&mut self.scan_in, scan_in) {
            rule.restore(saved);
        }
        self.scan_out.restore(scan_out);
        if let (Some(rule), Some(saved)) = (&mut self.raw_out, raw_out) {
            rule.restore(saved);
        }
        if let (Some(rule), Some(saved)) = (&mut self.hammering, hammering) {
            rule.restore(saved);
        }
        Ok(())
    }
}
