//! Which container a control group belongs to, from its path alone.
//!
//! Whoever may make control groups chooses their names: root, a user below its own `user@UID.service`, and a container below its own
//! group if it may write there. So the outermost container of a path is the host's word, all within it the container's; and what stands
//! below a user's service is that user's.

use bartizan_sensor_ebpf::abi::CGROUP_COMPONENTS;
use minicbor::{Decode, Encode};

/// Longest name of an LXC container or a machine that is taken: systemd's own limit, the length of a host name.
const NAME_MAX: usize = 64;
/// Hexadecimal digits of a container id of the engines.
const ID_LEN: usize = 64;
/// Digits and letters of a BuildKit id (`identity.NewID`: a random number in base 36).
const BUILDKIT_ID_LEN: usize = 25;

/// What runs a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Runtime {
    /// Docker Engine.
    #[n(0)]
    Docker,
    /// containerd, by Kubernetes, nerdctl or ctr.
    #[n(1)]
    Containerd,
    /// CRI-O.
    #[n(2)]
    CriO,
    /// podman.
    #[n(3)]
    Podman,
    /// LXC, LXD, Incus.
    #[n(4)]
    Lxc,
    /// systemd-nspawn, and other machines of systemd-machined that share the kernel.
    #[n(5)]
    Nspawn,
    /// A build step of BuildKit.
    #[n(6)]
    Buildkit,
}

impl Runtime {
    /// As in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Podman => "podman",
            Self::Lxc => "lxc",
            Self::Nspawn => "nspawn",
            Self::Buildkit => "buildkit",
        }
    }
}

/// A container, as a path tells it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its id: 64 hexadecimal digits, or the runtime's own form.
    pub id: String,
    /// Its runtime; `None` for a bare id, which several use.
    pub runtime: Option<Runtime>,
    /// Uid of its pod in Kubernetes, or podman's id of it.
    pub pod: Option<String>,
    /// The user below whose service it stands.
    pub user: Option<u32>,
    /// The outermost container, where this one is inside of it.
    pub within: Option<String>,
    /// The path may have had more components than were read: there may be a container around it.
    pub cut: bool,
}

impl Place {
    /// Whether the host's runtimes know it, as far as the path tells.
    pub fn is_of_host(&self) -> bool {
        self.within.is_none() && !self.cut
    }
}

/// The container that a process in the control group `path` belongs to: the innermost that the path names.
pub fn of_path(path: &str) -> Option<Place> {
    let components: Vec<&str> = path.split('/').filter(|component| !component.is_empty()).collect();
    let mut outermost: Option<String> = None;
    let mut innermost: Option<(String, Option<Runtime>)> = None;
    let (mut pod, mut user, mut in_kubepods) = (None, None, false);
    for (index, component) in components.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| components.get(index)).copied().unwrap_or_default();
        let after = components.get(index + 1).copied().unwrap_or_default();
        in_kubepods |= is_kubepods(component);
        if innermost.is_none() {
            user = user_of(component).or(user);
        }
        if let Some(uid) = pod_of(component, before, in_kubepods) {
            pod = Some(uid);
        } else if let Some((id, runtime)) = of_component(component, before, after) {
            if outermost.is_none() {
                outermost = Some(id.clone());
            }
            innermost = Some((id, runtime));
        }
    }
    let (id, runtime) = innermost?;
    let within = outermost.filter(|outermost| *outermost != id);
    Some(Place { id, runtime, pod, user, within, cut: components.len() >= CGROUP_COMPONENTS })
}

/// `kubepods`, `kubepods.slice`, `kubelet-kubepods-burstable.slice`: the kubelet's, possibly below its `--cgroup-root`.
fn is_kubepods(component: &str) -> bool {
    let stem = component.strip_suffix(".slice").unwrap_or(component);
    stem.split('-').any(|part| part == "kubepods")
}

/// `user-1000.slice`, `user@1000.service`. Root's containers are the host's.
fn user_of(component: &str) -> Option<u32> {
    let slice = component.strip_prefix("user-").and_then(|rest| rest.strip_suffix(".slice"));
    let service = || component.strip_prefix("user@").and_then(|rest| rest.strip_suffix(".service"));
    slice.or_else(service)?.parse().ok().filter(|uid| *uid != 0)
}

/// The pod that a component stands for: `kubepods-burstable-podUID.slice` with `_` for `-` (kubernetes, pkg/kubelet/cm/cgroup_manager_linux.go),
/// `podUID` below `kubepods`, `machine-libpod_pod_ID.slice`, `libpod_parent/ID` (podman, libpod/runtime_pod_linux.go).
fn pod_of(component: &str, before: &str, in_kubepods: bool) -> Option<String> {
    if before == "libpod_parent" && is_id(component) {
        return Some(component.to_owned());
    }
    let uid = match component.strip_suffix(".slice") {
        Some(stem) => {
            if let Some((_, id)) = stem.rsplit_once("libpod_pod_") {
                return is_id(id).then(|| id.to_owned());
            }
            stem.rsplit_once("-pod").filter(|(above, _)| is_kubepods(above))?.1.replace('_', "-")
        }
        None => component.strip_prefix("pod").filter(|_| in_kubepods)?.to_owned(),
    };
    let is_uid = (1..=ID_LEN).contains(&uid.len()) && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uid.then_some(uid)
}

/// The container that one component stands for, with the ones before and after it.
fn of_component(component: &str, before: &str, after: &str) -> Option<(String, Option<Runtime>)> {
    let stem = component.strip_suffix(".scope").unwrap_or(component);
    if let Some((prefix, id)) = stem.rsplit_once('-').filter(|(_, id)| is_id(id)) {
        let runtime = match prefix {
            "docker" => Some(Runtime::Docker),
            // containerd, internal/cri/server/helpers.go; nerdctl, pkg/cmd/container/run_cgroup_linux.go.
            "cri-containerd" | "nerdctl" => Some(Runtime::Containerd),
            "crio" => Some(Runtime::CriO),
            // podman, libpod/container_internal_linux.go: the second with `--cgroups=split`, as quadlets have it.
            "libpod" | "libpod-payload" => Some(Runtime::Podman),
            // A monitor's own group carries the id of its container and is not inside it: `crio-conmon-ID`, `libpod-conmon-ID`.
            _ if prefix.ends_with("conmon") => return None,
            _ => None,
        };
        return Some((id.to_owned(), runtime));
    }
    if is_id(component) {
        let runtime = match before {
            "docker" => Some(Runtime::Docker),
            // containerd's own namespaces, which ctr and nerdctl take for the group.
            "default" | "k8s.io" => Some(Runtime::Containerd),
            "moby" => Some(Runtime::Docker),
            _ => None,
        };
        return Some((component.to_owned(), runtime));
    }
    if before == "buildkit" && is_buildkit_id(component) {
        return Some((component.to_owned(), Some(Runtime::Buildkit)));
    }
    // LXC, src/lxc/cgroups/cgfsng.c: the payload; `lxc.monitor.NAME` is outside. `lxc/NAME` is LXC 3 and Proxmox.
    let lxc = component.strip_prefix("lxc.payload.").or_else(|| Some(component).filter(|_| matches!(before, "lxc" | "lxc.payload")));
    if let Some(name) = lxc.and_then(name) {
        return Some((name, Some(Runtime::Lxc)));
    }
    machine(component, after)
}

/// A machine of systemd-machined: `machine-NAME.scope`, or `systemd-nspawn@NAME.service/payload`. Beside the payload stands `supervisor`, which is
/// outside (systemd, src/nspawn/nspawn-cgroup.c). A virtual machine's processes are the host's.
fn machine(component: &str, after: &str) -> Option<(String, Option<Runtime>)> {
    if let Some(escaped) = component.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope")) {
        let name = name(&unescape(escaped)).filter(|_| after != "supervisor")?;
        let runtime = match name.split('-').next() {
            Some("qemu") => return None,
            // libvirt's: `lxc-PID-NAME`.
            Some("lxc") => Runtime::Lxc,
            Some(_) | None => Runtime::Nspawn,
        };
        return Some((name, Some(runtime)));
    }
    let escaped =
        component.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service")).filter(|_| after == "payload")?;
    Some((name(&unescape(escaped))?, Some(Runtime::Nspawn)))
}

fn is_id(text: &str) -> bool {
    text.len() == ID_LEN && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_buildkit_id(text: &str) -> bool {
    text.len() == BUILDKIT_ID_LEN && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'))
}

/// A name of an LXC container or a machine, if it is one.
fn name(text: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_name = (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(allowed) && !text.bytes().all(|byte| byte == b'.');
    is_name.then(|| text.to_owned())
}

/// systemd's escaping of unit names, as far as names of machines have it: `\x2d` is `-`.
fn unescape(text: &str) -> String {
    text.replace("\\x2d", "-")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const INNER: &str = "5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed";
    const UID: &str = "b39963e8-cc41-4d44-912a-ed5394b6d4d5";

    fn place(path: &str) -> Place {
        of_path(path).unwrap_or_else(|| panic!("{path} is in no container"))
    }

    #[test]
    fn every_runtime_s_form_is_found() {
        use Runtime::{Buildkit, Containerd, CriO, Docker, Lxc, Nspawn, Podman};
        let escaped = UID.replace('-', "_");
        for (path, runtime) in [
            (format!("/system.slice/docker-{ID}.scope"), Some(Docker)),
            (format!("/system.slice/docker-{ID}.scope/init.scope"), Some(Docker)),
            (format!("/docker/{ID}"), Some(Docker)),
            (
                format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{escaped}.slice/cri-containerd-{ID}.scope"),
                Some(Containerd),
            ),
            (format!("/kubepods/besteffort/pod{UID}/{ID}"), None),
            (format!("/k8s.io/{ID}"), Some(Containerd)),
            (format!("/system.slice/nerdctl-{ID}.scope"), Some(Containerd)),
            (format!("/kubepods.slice/kubepods-pod{escaped}.slice/crio-{ID}.scope"), Some(CriO)),
            (format!("/kubepods/burstable/pod{UID}/crio-{ID}"), Some(CriO)),
            (format!("/machine.slice/libpod-{ID}.scope/container"), Some(Podman)),
            (format!("/system.slice/web.service/libpod-payload-{ID}"), Some(Podman)),
            (format!("/libpod_parent/libpod-{ID}"), Some(Podman)),
            (format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"), Some(Podman)),
            (format!("/ecs/{}/{ID}", "ab".repeat(16)), None),
        ] {
            let place = place(&path);
            assert_eq!((place.id.as_str(), place.runtime), (ID, runtime), "{path}");
            assert!(place.is_of_host(), "{path}");
        }
        for (path, id, runtime) in [
            ("/lxc.payload.web/init.scope", "web", Lxc),
            ("/lxc/101/ns/system.slice", "101", Lxc),
            ("/machine.slice/machine-my\\x2dbox.scope/payload/init.scope", "my-box", Nspawn),
            ("/machine.slice/machine-lxc\\x2d12\\x2dweb.scope", "lxc-12-web", Lxc),
            ("/machine.slice/systemd-nspawn@box.service/payload/system.slice", "box", Nspawn),
            ("/docker/buildkit/vp2z5k8n1q0x7r3m4w6y9t8s1", "vp2z5k8n1q0x7r3m4w6y9t8s1", Buildkit),
        ] {
            let place = place(path);
            assert_eq!((place.id.as_str(), place.runtime), (id, Some(runtime)), "{path}");
        }
    }

    #[test]
    fn what_is_no_container_has_none() {
        for path in [
            "/",
            "",
            "/user.slice/user-0.slice/session-1.scope",
            &format!("/machine.slice/libpod-conmon-{ID}.scope"),
            &format!("/system.slice/crio-conmon-{ID}.scope"),
            &format!("/kubepods/burstable/pod{UID}/crio-conmon-{ID}"),
            &format!("/kubepods/burstable/pod{UID}"),
            &format!("/libpod_parent/{ID}"),
            "/libpod_parent/conmon",
            "/docker/abc",
            &format!("/docker/{}", ID.to_uppercase()),
            &format!("/system.slice/docker-{}.scope", &ID[1..]),
            "/system.slice/docker.service",
            "/lxc.monitor.web",
            "/lxc.payload.",
            "/lxc/..",
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator",
            "/machine.slice/machine-box.scope/supervisor",
            "/machine.slice/systemd-nspawn@box.service/supervisor",
        ] {
            assert_eq!(of_path(path), None, "{path}");
        }
    }

    #[test]
    fn the_pod_stands_in_the_path() {
        let escaped = UID.replace('-', "_");
        for path in [
            format!("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{escaped}.slice/cri-containerd-{ID}.scope"),
            format!("/kubepods.slice/kubepods-pod{escaped}.slice/crio-{ID}.scope/container"),
            format!("/kubepods/burstable/pod{UID}/{ID}"),
            format!("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{escaped}.slice/docker-{ID}.scope"),
        ] {
            assert_eq!(place(&path).pod.as_deref(), Some(UID), "{path}");
        }
        let podman = place(&format!("/machine.slice/machine-libpod_pod_{INNER}.slice/libpod-{ID}.scope"));
        assert_eq!((podman.pod.as_deref(), podman.within), (Some(INNER), None));
        let podman = place(&format!("/libpod_parent/{INNER}/libpod-{ID}"));
        assert_eq!((podman.pod.as_deref(), podman.within), (Some(INNER), None));
        // The name alone makes no pod.
        assert_eq!(place(&format!("/podcast/docker/{ID}")).pod, None);
        assert_eq!(place(&format!("/my-pod{escaped}.slice/docker-{ID}.scope")).pod, None);
    }

    #[test]
    fn a_container_in_a_container_is_told_as_such_and_not_asked_of_the_host() {
        let escaped = UID.replace('-', "_");
        let kind = place(&format!(
            "/docker/{ID}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{escaped}.slice/cri-containerd-{INNER}.scope"
        ));
        assert_eq!((kind.id.as_str(), kind.within.as_deref(), kind.runtime), (INNER, Some(ID), Some(Runtime::Containerd)));
        assert!(!kind.is_of_host());
        // Eight components are what the kernel side reads: there may be more.
        let deep = place(&format!("/a/b/c/d/e/f/g/docker-{ID}.scope"));
        assert!(deep.cut && !deep.is_of_host());
    }

    #[test]
    fn a_user_s_container_is_that_user_s() {
        let rootless =
            place(&format!("/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_{INNER}.slice/libpod-{ID}.scope"));
        assert_eq!((rootless.user, rootless.pod.as_deref()), (Some(1000), Some(INNER)));
        // Whatever runtime the name claims.
        assert_eq!(place(&format!("/user.slice/user@1000.service/docker-{ID}.scope")).user, Some(1000));
        assert_eq!(place(&format!("/user.slice/user-0.slice/libpod-{ID}.scope")).user, None);
        // A user of the container is none of the host.
        assert_eq!(place(&format!("/docker/{ID}/user.slice/user-1000.slice/session-1.scope")).user, None);
    }

    proptest! {
        #[test]
        fn any_path_is_read_and_ids_have_their_form(path in "(/?([a-z]{0,6}[-@.]?)?([0-9a-f]{60,66}|[ -~]{0,12}|user@[0-9]{1,12}\\.service|libpod_pod_|\\PC{0,4})(\\.scope|\\.slice)?){0,10}") {
            if let Some(place) = of_path(&path) {
                match place.runtime {
                    Some(Runtime::Lxc | Runtime::Nspawn) => prop_assert!(name(&place.id).is_some()),
                    Some(Runtime::Buildkit) => prop_assert!(is_buildkit_id(&place.id)),
                    Some(Runtime::Docker | Runtime::Containerd | Runtime::CriO | Runtime::Podman) | None => prop_assert!(is_id(&place.id)),
                }
                // What becomes part of a file name never leaves its folder.
                prop_assert!(!place.id.contains('/') && place.id != "." && place.id != "..");
            }
        }

        #[test]
        fn an_id_is_found_behind_every_prefix_of_slices(above in proptest::collection::vec("[a-z]{1,8}\\.slice", 0..5), id in "[0-9a-f]{64}") {
            let path = format!("/{}/docker-{id}.scope", above.join("/"));
            prop_assert_eq!(of_path(&path).map(|place| place.id), Some(id));
        }
    }
}
