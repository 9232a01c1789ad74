//! Where the running kernel keeps what the programs read.
//!
//! rustc emits no CO-RE relocations, so offsets are resolved at start from the kernel's BTF and handed over as one
//! read-only global. The map is frozen before load: the verifier sees constants and prunes branches on absent members.

/// A member that this kernel does not have.
pub const ABSENT: u16 = u16::MAX;

/// What to look up for one slot of [`KernelOffsets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// Byte offset of a member; dots descend into embedded structures, anonymous ones are searched by themselves.
    Member(&'static str, &'static str),
    /// Size of a structure.
    Size(&'static str),
    /// Value of an enumerator.
    Enumerator(&'static str),
}

/// One slot: its name, its index, and where to find its value. The first lookup that succeeds is taken.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// Field name in [`KernelOffsets`].
    pub name: &'static str,
    /// Index among the `u16`s of [`KernelOffsets`].
    pub index: usize,
    /// Candidates, newest kernel first.
    pub lookups: &'static [Lookup],
    /// Whether programs can do without it.
    pub optional: bool,
}

macro_rules! layout {
    ($( $name:ident $(($opt:ident))? = $($kind:ident($($arg:literal),+))|+ ; )*) => {
        /// Offsets and constants of the running kernel, in bytes; [`ABSENT`] where it has no such member.
        #[repr(C)]
        #[derive(Debug, Clone, Copy)]
        pub struct KernelOffsets { $( #[doc = concat!("`", stringify!($($kind($($arg),+))|+), "`.")] pub $name: u16, )* }

        impl KernelOffsets {
            /// Nothing resolved.
            pub const UNRESOLVED: Self = Self { $( $name: ABSENT, )* };

            /// Every slot, in the order of the fields.
            pub const SLOTS: &'static [Slot] = &[ $( Slot {
                name: stringify!($name),
                index: core::mem::offset_of!(Self, $name) / 2,
                lookups: &[ $( Lookup::$kind($($arg),+) ),+ ],
                optional: layout!(@optional $($opt)?),
            }, )* ];
        }
    };
    (@optional optional) => { true };
    (@optional) => { false };
}

layout! {
    task_tgid = Member("task_struct", "tgid");
    task_pid = Member("task_struct", "pid");
    task_real_parent = Member("task_struct", "real_parent");
    task_group_leader = Member("task_struct", "group_leader");
    task_start_boottime = Member("task_struct", "start_boottime");
    task_self_exec_id = Member("task_struct", "self_exec_id");
    task_cred = Member("task_struct", "cred");
    task_comm = Member("task_struct", "comm");
    task_mm = Member("task_struct", "mm");
    task_files = Member("task_struct", "files");
    task_fs = Member("task_struct", "fs");
    task_nsproxy = Member("task_struct", "nsproxy");
    task_signal = Member("task_struct", "signal");
    task_exit_code = Member("task_struct", "exit_code");
    task_flags = Member("task_struct", "flags");
    task_cgroups = Member("task_struct", "cgroups");
    task_thread_pid = Member("task_struct", "thread_pid");
    siginfo_code = Member("kernel_siginfo", "si_code");
    task_loginuid(optional) = Member("task_struct", "loginuid");
    task_sessionid(optional) = Member("task_struct", "sessionid");
    signal_live = Member("signal_struct", "live");
    signal_flags = Member("signal_struct", "flags");
    signal_group_exit_code = Member("signal_struct", "group_exit_code");
    signal_tty = Member("signal_struct", "tty");
    signal_pids = Member("signal_struct", "pids");
    pidtype_sid = Enumerator("PIDTYPE_SID");
    pid_level = Member("pid", "level");
    pid_numbers = Member("pid", "numbers");
    upid_size = Size("upid");
    upid_nr = Member("upid", "nr");
    upid_ns = Member("upid", "ns");
    pidns_inum = Member("pid_namespace", "ns.inum");
    nsproxy_mnt_ns = Member("nsproxy", "mnt_ns");
    mntns_inum = Member("mnt_namespace", "ns.inum");
    nsproxy_time_ns(optional) = Member("nsproxy", "time_ns");
    cred_uid = Member("cred", "uid");
    cred_gid = Member("cred", "gid");
    cred_euid = Member("cred", "euid");
    cred_suid = Member("cred", "suid");
    cred_sgid = Member("cred", "sgid");
    cred_egid = Member("cred", "egid");
    cred_fsuid = Member("cred", "fsuid");
    cred_fsgid = Member("cred", "fsgid");
    cred_group_info = Member("cred", "group_info");
    group_info_count = Member("group_info", "ngroups");
    group_info_gids = Member("group_info", "gid");
    cred_cap_effective = Member("cred", "cap_effective");
    mm_arg_start = Member("mm_struct", "arg_start");
    mm_arg_end = Member("mm_struct", "arg_end");
    mm_env_start = Member("mm_struct", "env_start");
    mm_env_end = Member("mm_struct", "env_end");
    mm_exe_file = Member("mm_struct", "exe_file");
    binprm_filename = Member("linux_binprm", "filename");
    binprm_interp = Member("linux_binprm", "interp");
    file_path = Member("file", "f_path");
    file_inode = Member("file", "f_inode");
    file_mode = Member("file", "f_mode");
    file_flags = Member("file", "f_flags");
    file_private = Member("file", "private_data");
    path_mnt = Member("path", "mnt");
    path_dentry = Member("path", "dentry");
    dentry_name = Member("dentry", "d_name.name");
    dentry_inode = Member("dentry", "d_inode");
    dentry_sb = Member("dentry", "d_sb");
    dentry_parent = Member("dentry", "d_parent");
    mount_mnt = Member("mount", "mnt");
    mount_parent = Member("mount", "mnt_parent");
    mount_mountpoint = Member("mount", "mnt_mountpoint");
    vfsmount_root = Member("vfsmount", "mnt_root");
    inode_private = Member("inode", "i_private");
    inode_mode = Member("inode", "i_mode");
    inode_ino = Member("inode", "i_ino");
    inode_rdev = Member("inode", "i_rdev");
    inode_sb = Member("inode", "i_sb");
    inode_nlink = Member("inode", "i_nlink");
    inode_uid = Member("inode", "i_uid");
    inode_size = Member("inode", "i_size");
    inode_ctime_sec = Member("inode", "i_ctime_sec") | Member("inode", "__i_ctime.tv_sec") | Member("inode", "i_ctime.tv_sec");
    inode_ctime_nsec = Member("inode", "i_ctime_nsec") | Member("inode", "__i_ctime.tv_nsec") | Member("inode", "i_ctime.tv_nsec");
    inode_struct_size = Size("inode");
    sb_magic = Member("super_block", "s_magic");
    file_pos = Member("file", "f_pos");
    folio_flags = Member("folio", "flags");
    folio_index = Member("folio", "index");
    folio_pages(optional) = Member("folio", "_nr_pages") | Member("folio", "_folio_nr_pages");
    page_head(optional) = Enumerator("PG_head");
    mapping_host = Member("address_space", "host");
    inode_gid = Member("inode", "i_gid");
    sb_type = Member("super_block", "s_type");
    fs_type_name = Member("file_system_type", "name");
    iattr_valid = Member("iattr", "ia_valid");
    iattr_mode = Member("iattr", "ia_mode");
    iattr_uid = Member("iattr", "ia_uid");
    iattr_gid = Member("iattr", "ia_gid");
    iattr_size = Member("iattr", "ia_size");
    sb_dev = Member("super_block", "s_dev");
    fs_pwd = Member("fs_struct", "pwd");
    files_fdt = Member("files_struct", "fdt");
    fdt_max_fds = Member("fdtable", "max_fds");
    fdt_fd = Member("fdtable", "fd");
    fdt_open_fds = Member("fdtable", "open_fds");
    socket_sk = Member("socket", "sk");
    socket_alloc_socket = Member("socket_alloc", "socket");
    socket_alloc_inode = Member("socket_alloc", "vfs_inode");
    sock_family = Member("sock", "__sk_common.skc_family");
    sock_state = Member("sock", "__sk_common.skc_state");
    sock_daddr = Member("sock", "__sk_common.skc_daddr");
    sock_rcv_saddr = Member("sock", "__sk_common.skc_rcv_saddr");
    sock_dport = Member("sock", "__sk_common.skc_dport");
    sock_num = Member("sock", "__sk_common.skc_num");
    sock_v6_daddr(optional) = Member("sock", "__sk_common.skc_v6_daddr");
    sock_v6_rcv_saddr(optional) = Member("sock", "__sk_common.skc_v6_rcv_saddr");
    sock_protocol = Member("sock", "sk_protocol");
    sock_err = Member("sock", "sk_err");
    sock_socket = Member("sock", "sk_socket");
    sock_type = Member("sock", "sk_type");
    sock_flags = Member("sock", "__sk_common.skc_flags");
    sock_done = Enumerator("SOCK_DONE");
    inet_sport = Member("inet_sock", "inet_sport");
    tcp_bytes_sent = Member("tcp_sock", "bytes_sent");
    tcp_bytes_retrans = Member("tcp_sock", "bytes_retrans");
    tcp_bytes_received = Member("tcp_sock", "bytes_received");
    tcp_segs_in = Member("tcp_sock", "segs_in");
    tcp_segs_out = Member("tcp_sock", "segs_out");
    tcp_total_retrans = Member("tcp_sock", "total_retrans");
    sock_max_ack_backlog = Member("sock", "sk_max_ack_backlog");
    skb_head(optional) = Member("sk_buff", "head");
    skb_network_header(optional) = Member("sk_buff", "network_header");
    skb_transport_header(optional) = Member("sk_buff", "transport_header");
    drop_no_socket(optional) = Enumerator("SKB_DROP_REASON_NO_SOCKET");
    sock_peer_pid = Member("sock", "sk_peer_pid");
    sock_peer_cred = Member("sock", "sk_peer_cred");
    unix_addr = Member("unix_sock", "addr");
    unix_address_len = Member("unix_address", "len");
    unix_address_name = Member("unix_address", "name");
    vsock_local(optional) = Member("vsock_sock", "local_addr");
    vsock_remote(optional) = Member("vsock_sock", "remote_addr");
    unix_peer = Member("unix_sock", "peer");
    tty_private_tty = Member("tty_file_private", "tty");
    tty_link = Member("tty_struct", "link");
    tty_name = Member("tty_struct", "name");
    css_set_dfl = Member("css_set", "dfl_cgrp");
    css_set_subsys = Member("css_set", "subsys");
    css_cgroup = Member("cgroup_subsys_state", "cgroup");
    cgroup_v1_subsys(optional) = Enumerator("pids_cgrp_id") | Enumerator("memory_cgrp_id") | Enumerator("cpu_cgrp_id");
    cgroup_kn = Member("cgroup", "kn");
    kn_name = Member("kernfs_node", "name");
    kn_parent = Member("kernfs_node", "__parent") | Member("kernfs_node", "parent");
    kn_id = Member("kernfs_node", "id");
    regs_di = Member("pt_regs", "di");
    regs_si = Member("pt_regs", "si");
    regs_dx = Member("pt_regs", "dx");
    regs_bx = Member("pt_regs", "bx");
    regs_cx = Member("pt_regs", "cx");
    regs_orig_ax = Member("pt_regs", "orig_ax");
    regs_r10 = Member("pt_regs", "r10");
    regs_r8 = Member("pt_regs", "r8");
    task_thread_status(optional) = Member("task_struct", "thread_info.status");
    task_ptraced = Member("task_struct", "ptraced");
    task_ptrace_entry = Member("task_struct", "ptrace_entry");
    task_pid_links = Member("task_struct", "pid_links");
    pid_tasks = Member("pid", "tasks");
    pidtype_tgid = Enumerator("PIDTYPE_TGID");
    nsproxy_pid_for_children = Member("nsproxy", "pid_ns_for_children");
    nsproxy_net_ns = Member("nsproxy", "net_ns");
    nsproxy_uts_ns = Member("nsproxy", "uts_ns");
    nsproxy_ipc_ns = Member("nsproxy", "ipc_ns");
    nsproxy_cgroup_ns = Member("nsproxy", "cgroup_ns");
    nsproxy_time_for_children(optional) = Member("nsproxy", "time_ns_for_children");
    netns_inum = Member("net", "ns.inum");
    utsns_inum = Member("uts_namespace", "ns.inum");
    ipcns_inum = Member("ipc_namespace", "ns.inum");
    cgroupns_inum = Member("cgroup_namespace", "ns.inum");
    timens_inum(optional) = Member("time_namespace", "ns.inum");
    cred_user_ns = Member("cred", "user_ns");
    userns_inum = Member("user_namespace", "ns.inum");
    cred_cap_permitted = Member("cred", "cap_permitted");
    cred_cap_inheritable = Member("cred", "cap_inheritable");
    cred_cap_bset = Member("cred", "cap_bset");
    cred_cap_ambient = Member("cred", "cap_ambient");
    cred_securebits = Member("cred", "securebits");
    task_real_cred = Member("task_struct", "real_cred");
    fs_root = Member("fs_struct", "root");
    task_seccomp_mode(optional) = Member("task_struct", "seccomp.mode");
    task_seccomp_filter(optional) = Member("task_struct", "seccomp.filter");
    task_seccomp_count(optional) = Member("task_struct", "seccomp.filter_count");
    seccomp_filter_prog(optional) = Member("seccomp_filter", "prog");
    prog_len = Member("bpf_prog", "len");
    vma_start = Member("vm_area_struct", "vm_start");
    vma_end = Member("vm_area_struct", "vm_end");
    vma_flags = Member("vm_area_struct", "vm_flags") | Member("vm_area_struct", "__vm_flags");
    vma_file = Member("vm_area_struct", "vm_file");
    vma_anon = Member("vm_area_struct", "anon_vma");
    req_opcode(optional) = Member("io_kiocb", "opcode");
    req_fd(optional) = Member("io_kiocb", "cqe.fd");
    io_open_filename(optional) = Member("io_open", "filename");
    io_unlink_filename(optional) = Member("io_unlink", "filename");
    io_rename_oldpath(optional) = Member("io_rename", "oldpath");
    io_rename_newpath(optional) = Member("io_rename", "newpath");
    io_link_oldpath(optional) = Member("io_link", "oldpath");
    io_link_newpath(optional) = Member("io_link", "newpath");
    io_open_dfd(optional) = Member("io_open", "dfd");
    io_unlink_dfd(optional) = Member("io_unlink", "dfd");
    io_rename_dfd(optional) = Member("io_rename", "old_dfd");
    io_link_dfd(optional) = Member("io_link", "old_dfd");
    io_link_new_dfd(optional) = Member("io_link", "new_dfd");
    io_mkdir_dfd(optional) = Member("io_mkdir", "dfd");
    io_mkdir_filename(optional) = Member("io_mkdir", "filename");
    filename_name = Member("filename", "name");
    prog_type = Member("bpf_prog", "type");
    prog_attach_type = Member("bpf_prog", "expected_attach_type");
    prog_tag = Member("bpf_prog", "tag");
    prog_aux = Member("bpf_prog", "aux");
    prog_orig = Member("bpf_prog", "orig_prog");
    fprog_len = Member("sock_fprog_kern", "len");
    aux_id = Member("bpf_prog_aux", "id");
    aux_name = Member("bpf_prog_aux", "name");
    aux_function = Member("bpf_prog_aux", "attach_func_name");
    aux_attach_btf_id = Member("bpf_prog_aux", "attach_btf_id");
    link_type = Member("bpf_link", "type");
    link_prog = Member("bpf_link", "prog");
    link_id = Member("bpf_link", "id");
    primer_id = Member("bpf_link_primer", "id");
    raw_link_btp = Member("bpf_raw_tp_link", "btp");
    btp_tp = Member("bpf_raw_event_map", "tp");
    tracepoint_name = Member("tracepoint", "name");
    cgroup_link_cgroup(optional) = Member("bpf_cgroup_link", "cgroup");
    perf_link_file(optional) = Member("bpf_perf_link", "perf_file");
    perf_event_type(optional) = Member("perf_event", "attr.type");
    perf_event_config(optional) = Member("perf_event", "attr.config");
    xdp_link_dev(optional) = Member("bpf_xdp_link", "dev");
    tcx_link_dev(optional) = Member("tcx_link", "dev");
    netdev_ifindex = Member("net_device", "ifindex");
    sock_filter = Member("sock", "sk_filter");
    sock_filter_prog = Member("sk_filter", "prog");
    module_name(optional) = Member("module", "name");
    module_taints(optional) = Member("module", "taints");
    module_sig_ok(optional) = Member("module", "sig_ok");
    reading_module(optional) = Enumerator("READING_MODULE");
    reading_kexec(optional) = Enumerator("READING_KEXEC_IMAGE");
    loading_module(optional) = Enumerator("LOADING_MODULE");
    kprobe_symbol(optional) = Member("kprobe", "symbol_name");
    kprobe_addr(optional) = Member("kprobe", "addr");
    kprobe_offset(optional) = Member("kprobe", "offset");
    inode_dentry = Member("inode", "i_dentry");
    dentry_alias = Member("dentry", "d_u.d_alias");
    perf_event_pmu(optional) = Member("perf_event", "pmu");
    perf_event_path(optional) = Member("perf_event", "attr.config1");
    perf_event_offset(optional) = Member("perf_event", "attr.config2");
    pmu_name(optional) = Member("pmu", "name");
    helper_path = Member("subprocess_info", "path");
    helper_argv = Member("subprocess_info", "argv");
    syscall_exit_ret = Member("syscall_tp_t", "ret");
    syscall_number(optional) = Member("syscall_tp_t", "syscall_nr") | Member("syscall_tp_t", "nr");
}
