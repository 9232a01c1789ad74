//! The one list of record kinds.

use super::{FAILED_NAME_MAX, Fd, Header, Image, PAM_ITEM_MAX, PAM_NAME_MAX, PROBE_PORTS, Relay, STDIO, SYSLOG_MAX, Span, TaskIds};

/// Which ring a kind travels in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// Small; for what must not be crowded out by bulk.
    Priority,
    /// Large; for what comes in masses.
    Bulk,
}

/// What the rest of the code may ask about a kind.
#[derive(Debug, Clone, Copy)]
pub struct KindInfo {
    /// The kind.
    pub kind: Kind,
    /// The event kind it becomes: its name in counters and status. Several record kinds may become one event kind.
    pub name: &'static str,
    /// Its ring.
    pub ring: Ring,
    /// Bytes of header and fixed part: the least a record of this kind can have.
    pub fixed: usize,
}

macro_rules! events {
    ($(
        $(#[$doc:meta])*
        $number:literal => $name:ident as $text:literal in $ring:ident {
            $( $(#[$field_doc:meta])* $field:ident: $ty:ty, )*
        }
    )*) => {
        /// The record kinds. Numbers are never reused.
        #[repr(u16)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind { $( $(#[$doc])* $name = $number, )* }

        impl Kind {
            /// The kind with this number; `None` for one that this build does not know.
            pub const fn from_raw(raw: u16) -> Option<Self> {
                match raw { $( $number => Some(Self::$name), )* _ => None }
            }

            /// The ring that it travels in.
            pub const fn ring(self) -> Ring {
                match self { $( Self::$name => Ring::$ring, )* }
            }
        }

        /// Every kind, in the order of the list.
        pub const KINDS: &[KindInfo] = &[ $( KindInfo {
            kind: Kind::$name, name: $text, ring: Ring::$ring, fixed: size_of::<$name>(),
        }, )* ];

        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Debug, Clone, Copy)]
            #[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
            pub struct $name {
                /// Subject, time and length.
                pub header: Header,
                $( $(#[$field_doc])* pub $field: $ty, )*
            }

            const _: () = assert!(
                size_of::<$name>() == size_of::<Header>() $( + size_of::<$ty>() )*,
                concat!(stringify!($name), " has implicit padding: order its fields by size or pad it by name"),
            );
            const _: () = assert!(size_of::<$name>() % 8 == 0, "ring records are 8-aligned");
            const _: () = assert!(($number as usize) < super::KINDS_MAX, "raise KINDS_MAX");
        )*

        /// A decoded record: its fixed part, borrowed from the ring, and the whole record's bytes for its spans.
        #[cfg(feature = "decode")]
        #[derive(Debug, Clone, Copy)]
        pub enum Record<'a> {
            $( $(#[$doc])* $name(&'a $name, super::decode::Bytes<'a>), )*
        }

        #[cfg(feature = "decode")]
        impl<'a> Record<'a> {
            pub(super) fn with_kind(kind: Kind, bytes: &'a [u8]) -> Option<Self> {
                match kind {
                    $( Kind::$name => {
                        let (fixed, _) = <$name as zerocopy::FromBytes>::ref_from_prefix(bytes).ok()?;
                        Some(Self::$name(fixed, super::decode::Bytes(bytes)))
                    } )*
                }
            }

            /// The record's header.
            pub fn header(&self) -> &'a Header {
                match self { $( Self::$name(fixed, _) => &fixed.header, )* }
            }

            /// The record's kind.
            pub fn kind(&self) -> Kind {
                match self { $( Self::$name(..) => Kind::$name, )* }
            }
        }
    };
}

events! {
    /// A process replaced its image.
    1 => Exec as "process.exec" in Priority {
        /// The new image.
        image: Image,
        /// Descriptors 0, 1, 2.
        stdio: [Fd; STDIO],
        /// What the parent holds of their other ends.
        relay: Relay,
        /// Path as the caller asked for it (`linux_binprm.filename`).
        requested: Span,
        /// Argument vector, NUL-separated.
        argv: Span,
    }

    /// An exec failed. The header names the image that tried. In the bulk ring: anybody can make these by the million, and
    /// they must not crowd out what must not be lost.
    2 => ExecFailed as "process.exec" in Bulk {
        /// Errno, positive.
        error: u32,
        /// Path as the caller asked for it, read from its memory: a span of `name`.
        requested: Span,
        /// Room for the path. Bytes behind the span are stale.
        name: [u8; FAILED_NAME_MAX],
    }

    /// A process was made. The header names its parent.
    3 => Fork as "process.fork" in Priority {
        /// `start_boottime` of the child, nanoseconds.
        child_start_boottime: u64,
        /// Its thread-group id.
        child_tgid: u32,
        /// Its `self_exec_id`, low half.
        child_exec_id: u32,
        /// `comm`, NUL-terminated; bytes after the NUL are stale.
        comm: [u8; 16],
    }

    /// The last thread of a process ended.
    4 => Exit as "process.exit" in Priority {
        /// Wait status, as `waitpid` gives it.
        status: u32,
        /// Zero.
        pad: u32,
    }

    /// A process that the task iterator found.
    5 => Seed as "process.seed" in Priority {
        /// Its image.
        image: Image,
        /// Descriptors 0, 1, 2.
        stdio: [Fd; STDIO],
        /// What the parent holds of their other ends.
        relay: Relay,
        /// Connected INET sockets that the process itself holds; nothing else is filled.
        own: Relay,
    }

    /// A connection attempt came to its result.
    6 => Connect as "network.connect" in Bulk {
        /// The socket.
        socket: Fd,
        /// Boot clock at the attempt, nanoseconds.
        started: u64,
        /// Errno, positive; 0 is success.
        error: u32,
        /// Zero.
        pad: u32,
    }

    /// A program took a connection that a peer made.
    7 => Accept as "network.accept" in Bulk {
        /// The new socket.
        socket: Fd,
    }

    /// A TCP socket begins to take connections.
    8 => Listen as "network.listen" in Bulk {
        /// The socket.
        socket: Fd,
        /// Connections that may wait.
        backlog: u32,
        /// Zero.
        pad: u32,
    }

    /// Packets of one source that reached ports on which nothing listens. Without a subject: the header's process is zero.
    9 => Probe as "network.probe" in Bulk {
        /// Source address, network order; IPv4 in the first four bytes.
        source: [u8; 16],
        /// Address of this host that the first packet went to, likewise.
        local: [u8; 16],
        /// Boot clock of the first packet, nanoseconds.
        first: u64,
        /// Packets.
        packets: u64,
        /// `IPPROTO_TCP` or `IPPROTO_UDP`.
        protocol: u16,
        /// `AF_INET` or `AF_INET6`.
        family: u16,
        /// Ports in `ports`.
        found: u16,
        /// TCP flags, the same of all packets.
        flags: u16,
        /// Ports, each once, host order.
        ports: [u16; PROBE_PORTS],
    }

    /// A task changed its user or group ids.
    10 => Credentials as "process.credentials" in Priority {
        /// System call number on x86-64 of the family member: 105 `setuid`, 106 `setgid`, 113 `setreuid`, 114 `setregid`, 117
        /// `setresuid`, 119 `setresgid`, 122 `setfsuid`, 123 `setfsgid`, whichever entry was used.
        call: u32,
        /// Zero.
        pad: u32,
        /// Before.
        old: TaskIds,
        /// After.
        new: TaskIds,
    }

    /// `pam_start` returned.
    11 => PamStart as "auth.start" in Priority {
        /// The handle: an address of the caller.
        handle: u64,
        /// What it returned.
        result: u32,
        /// Bytes of `service` with its NUL, 0 for none.
        service_len: u16,
        /// Bytes of `user`, likewise.
        user_len: u16,
        /// Service name.
        service: [u8; PAM_NAME_MAX],
        /// User name.
        user: [u8; PAM_NAME_MAX],
    }

    /// `pam_set_item` is called for an item that is no secret.
    12 => PamItem as "auth.start" in Priority {
        /// The handle.
        handle: u64,
        /// `PAM_SERVICE` ..., security/_pam_types.h.
        item: u32,
        /// Bytes of `value` with its NUL, 0 for none.
        len: u32,
        /// The item.
        value: [u8; PAM_ITEM_MAX],
    }

    /// `pam_authenticate` returned.
    13 => PamAuthenticate as "auth.authenticate" in Priority {
        /// The handle.
        handle: u64,
        /// What it returned.
        result: u32,
        /// Zero.
        pad: u32,
    }

    /// `pam_acct_mgmt` returned.
    14 => PamAccount as "auth.account" in Priority {
        /// The handle.
        handle: u64,
        /// What it returned.
        result: u32,
        /// Zero.
        pad: u32,
    }

    /// `pam_open_session` returned.
    15 => PamSessionOpen as "auth.session_open" in Priority {
        /// The handle.
        handle: u64,
        /// What it returned.
        result: u32,
        /// Zero.
        pad: u32,
    }

    /// `pam_close_session` returned.
    16 => PamSessionClose as "auth.session_close" in Priority {
        /// The handle.
        handle: u64,
        /// What it returned.
        result: u32,
        /// Zero.
        pad: u32,
    }

    /// `pam_end` is called: the handle names nothing any more.
    17 => PamEnd as "auth.start" in Priority {
        /// The handle.
        handle: u64,
    }

    /// sshd hands a message to syslog.
    18 => SshdLog as "auth.authenticate" in Priority {
        /// Bytes of `text` with its NUL.
        len: u32,
        /// Zero.
        pad: u32,
        /// The message.
        text: [u8; SYSLOG_MAX],
    }
}
