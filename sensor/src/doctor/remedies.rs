//! What to do about a hook that did not get its best tier, by the reason that loading gave.

/// A reason that is recognised by its words, and its remedy.
pub(super) struct Remedy {
    /// Words of the reason: those of `capture/load.rs` and `capture/hooks.rs`.
    pub(super) words: &'static [&'static str],
    /// What to do.
    pub(super) remedy: &'static str,
}

pub(super) const CONFIDENTIALITY: &str = "boot with `lockdown=integrity` on the kernel command line (in /etc/default/grub: GRUB_CMDLINE_LINUX, then `update-grub` and `reboot`): \
     confidentiality forbids that programs read kernel memory";

pub(super) const OTHER_KERNEL: &str = "nothing to type on this kernel: it, or the hypervisor below it, forbids this type of program. Stock distribution kernels \
     allow it (tried: Debian 6.1 and 6.12): `apt-get install linux-image-amd64`, then `reboot`";

pub(super) const TRACEFS: &str = "`mount -t tracefs tracefs /sys/kernel/tracing`; `bartizan run` does that by itself when it may";

/// For reasons of words that are not in the list.
pub(super) const UNKNOWN: &str = "run `bartizan run --log bartizan_sensor=debug`: the log says more; report it with the kernel version";

/// The first that fits counts.
pub(super) const REMEDIES: &[Remedy] = &[
    Remedy {
        words: &["disabled by the operator"],
        remedy: "take its name out of `sensor.disable_hooks` in /etc/bartizan/config.toml and out of `--disable-hook`, then start Bartizan again",
    },
    Remedy { words: &["tracefs not found", "is tracefs mounted?"], remedy: TRACEFS },
    Remedy {
        words: &["libpam"],
        remedy: "`apt-get install libpam0g`; without PAM on this host there is nothing to attach to, and `sensor.disable_hooks` silences this",
    },
    Remedy {
        words: &["expected ("],
        remedy: "use a newer Bartizan: this kernel changed the function's parameters, and Bartizan does not guess; please report the kernel version",
    },
    Remedy {
        words: &["the verifier rejects", "the kernel object has no program", "cannot keep a handle"],
        remedy: "this is a fault of Bartizan: run `bartizan run --log bartizan_sensor=debug` and report its `verifier log` with the kernel version",
    },
    Remedy {
        words: &["this kernel has no"],
        remedy: "nothing to type on this kernel: it was built without this hook, or is too old. Debian's 6.1 and 6.12 have all of them: \
                 `apt-get install linux-image-amd64`, then `reboot`",
    },
    Remedy { words: &["lsm"], remedy: super::kernel::LSM },
    Remedy { words: &["this kernel refuses", "this kernel does not attach"], remedy: OTHER_KERNEL },
];

/// What to do about the reasons of all tiers, which are joined by `; `: one remedy for each kind of them, what can be typed first.
/// Reasons of other words get the general one.
pub(super) fn remedies(reason: &str) -> Vec<&'static str> {
    let fits = |reason: &str, remedy: &Remedy| remedy.words.iter().any(|words| reason.contains(words));
    let known = |reason: &str| REMEDIES.iter().position(|remedy| fits(reason, remedy));
    let mut found: Vec<usize> = reason.split("; ").filter_map(known).collect();
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        return vec![UNKNOWN];
    }
    found.into_iter().filter_map(|at| REMEDIES.get(at)).map(|remedy| remedy.remedy).collect()
}
