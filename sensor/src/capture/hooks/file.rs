//! What is done to files.

use super::{ANY, Attach, Hook, ProgramSpec, Tier, optional, program, syscall};

const INODE: &str = "struct inode *";
const DENTRY: &str = "struct dentry *";
const PATH: &str = "struct path *";

/// Events of the one fanotify group.
const fn fanotify(events: u64) -> ProgramSpec {
    ProgramSpec { program: "fanotify", attach: Attach::Fanotify(events), optional: false, part: 0 }
}

/// In the order of the status page.
pub(super) const HOOKS: &[Hook] = &[
    Hook {
        name: "file_open",
        kinds: &["file.open", "file.create"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program("fexit_file_open", Attach::Fexit("security_file_open", &["struct file *"])),
                    program("fexit_inode_mkdir", Attach::Fexit("security_inode_mkdir", &[INODE, DENTRY, "umode_t"])),
                    program("fexit_inode_mknod", Attach::Fexit("security_inode_mknod", &[INODE, DENTRY, "umode_t", "dev_t"])),
                ],
                blind: None,
            },
            Tier {
                name: "fanotify",
                programs: &[
                    fanotify(libc::FAN_OPEN | libc::FAN_CLOSE_WRITE | libc::FAN_CLOSE_NOWRITE | libc::FAN_MODIFY | libc::FAN_CREATE),
                    // What is telling wherever it is: executables that appear, block devices, pseudo files.
                    syscall("sys_exit_open", "sys_exit_open"),
                    syscall("sys_exit_open", "sys_exit_openat"),
                    syscall("sys_exit_open", "sys_exit_openat2"),
                    syscall("sys_exit_open", "sys_exit_creat"),
                ],
                blind: Some(
                    "executables created, block devices and pseudo files (/proc/PID/mem, tracefs, debugfs) opened for writing outside of watched folders \
                 by io_uring, 32-bit (int 0x80) callers or open_by_handle_at; of watched files the flags of what was closed again at once, and how often \
                 (the kernel merges)",
                ),
            },
        ],
        without: "who opens watched files, and what appears in watched folders",
        costs: &[],
    },
    Hook {
        name: "file_rename",
        kinds: &["file.rename"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[program(
                    "fexit_inode_rename",
                    Attach::Fexit("security_inode_rename", &[INODE, DENTRY, INODE, DENTRY, "unsigned int"]),
                )],
                blind: None,
            },
            Tier {
                name: "fanotify",
                programs: &[fanotify(libc::FAN_RENAME)],
                blind: Some(
                    "whether two names were exchanged; which unwatched file a rename replaced; renames on network and overlay file systems",
                ),
            },
        ],
        without: "renames",
        costs: &[],
    },
    Hook {
        name: "file_unlink",
        kinds: &["file.unlink"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program("fexit_inode_unlink", Attach::Fexit("security_inode_unlink", &[INODE, DENTRY])),
                    program("fexit_inode_rmdir", Attach::Fexit("security_inode_rmdir", &[INODE, DENTRY])),
                ],
                blind: None,
            },
            Tier {
                name: "fanotify",
                programs: &[fanotify(libc::FAN_DELETE)],
                blind: Some("owner and size of unwatched files that are removed; removals on network and overlay file systems"),
            },
        ],
        without: "removed files",
        costs: &[],
    },
    Hook {
        name: "file_link",
        kinds: &["file.link"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program("fexit_inode_link", Attach::Fexit("security_inode_link", &[DENTRY, INODE, DENTRY])),
                    program("fexit_inode_symlink", Attach::Fexit("security_inode_symlink", &[INODE, DENTRY, "char *"])),
                ],
                blind: None,
            },
            Tier {
                name: "fanotify",
                programs: &[fanotify(libc::FAN_CREATE | libc::FAN_ATTRIB)],
                blind: Some(
                    "links outside of watched folders; the new name of a hard link to a watched file, where that name is in no watched folder",
                ),
            },
        ],
        without: "hard links to watched files, and links in watched folders",
        costs: &[],
    },
    Hook {
        name: "file_attributes",
        kinds: &["file.attributes", "file.xattr"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program("fexit_inode_setattr", Attach::Fexit("security_inode_setattr", &[ANY, DENTRY, "struct iattr *"])),
                    program(
                        "fexit_inode_post_setxattr",
                        Attach::Fexit("security_inode_post_setxattr", &[DENTRY, "char *", "void *", "size_t", "int"]),
                    ),
                    optional("fexit_vfs_removexattr", Attach::Fexit("vfs_removexattr", &[ANY, DENTRY, "char *"])),
                ],
                blind: Some("access control lists that are set (setfacl) on Linux 6.2 and later"),
            },
            Tier {
                name: "fanotify",
                programs: &[fanotify(libc::FAN_ATTRIB)],
                blind: Some(
                    "attributes of files that are not watched (setuid, capabilities); truncation, which is told as an open for writing",
                ),
            },
        ],
        without: "permissions, owners and extended attributes that are set",
        costs: &[],
    },
    Hook {
        name: "file_write",
        kinds: &["file.write"],
        tiers: &[Tier {
            name: "tp_btf",
            programs: &[program(
                "writeback_dirty_folio",
                Attach::TpBtf("writeback_dirty_folio", &["struct folio *", "struct address_space *"]),
            )],
            blind: Some("writes to file systems without a disk (tmpfs), and with O_DIRECT"),
        }],
        without: "how much is written to which files, and whether it looks encrypted",
        costs: &[],
    },
    Hook {
        name: "file_mount",
        kinds: &["file.mount", "file.umount"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program("fexit_path_mount", Attach::Fexit("path_mount", &["char *", PATH, "char *", "long unsigned int", "void *"])),
                    program("fexit_move_mount", Attach::Fexit("security_move_mount", &[PATH, PATH])),
                    program("fexit_sb_pivotroot", Attach::Fexit("security_sb_pivotroot", &[PATH, PATH])),
                    program("fexit_sb_umount", Attach::Fexit("security_sb_umount", &["struct vfsmount *", "int"])),
                ],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[
                    syscall("sys_exit_mount", "sys_exit_mount"),
                    syscall("sys_exit_move_mount", "sys_exit_move_mount"),
                    syscall("sys_exit_pivot_root", "sys_exit_pivot_root"),
                    syscall("sys_exit_umount", "sys_exit_umount"),
                ],
                blind: Some("mounts by 32-bit (int 0x80) callers; paths are what stood in the caller's memory after the call"),
            },
        ],
        without: "mounts",
        costs: &[],
    },
];
