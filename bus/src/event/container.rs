//! What a process is confined to: its container, and its namespaces.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

/// What is known of a container besides its id. All of it but `runtime`, `pod.uid` and `within` comes from the files that the container's
/// runtime keeps on the host, a moment after the container's first event: that one may have less than the later ones.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct ContainerInfo {
    /// `docker`, `containerd`, `cri-o`, `podman`, `lxc`, `nspawn` or `buildkit`.
    #[n(0)]
    pub runtime: Option<String>,
    /// Name that the runtime's user gave, or the container's name in its pod.
    #[n(1)]
    pub name: Option<String>,
    /// Image as the runtime names it, such as `docker.io/library/nginx:1.27`.
    #[n(2)]
    pub image: Option<String>,
    /// Id of the image: `sha256:` and 64 digits, or the digits alone.
    #[n(3)]
    pub image_id: Option<String>,
    /// The pod that the container is in.
    #[n(4)]
    pub pod: Option<Pod>,
    /// Id of the container that it runs in, where that is not the host. Then the rest is what the outer container's control groups say of
    /// themselves: the host's runtimes know nothing of it.
    #[n(5)]
    pub within: Option<String>,
    /// Uid of the user whose containers it is among, where these are not root's.
    #[n(6)]
    pub user: Option<u32>,
    /// Labels that say what the container is part of, a short list by their keys. Others may hold secrets and are left out.
    #[n(7)]
    #[cbor(default)]
    pub labels: BTreeMap<String, String>,
}

/// A pod: of Kubernetes, or of podman.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Pod {
    /// Its name; podman keeps it where it is not read.
    #[n(0)]
    pub name: Option<String>,
    /// Its namespace in Kubernetes.
    #[n(1)]
    pub namespace: Option<String>,
    /// Its uid in Kubernetes, or podman's id of it.
    #[n(2)]
    pub uid: Option<String>,
}

/// Inodes of namespaces: two processes with the same number share the namespace. As they were when the image began; a later `setns` or
/// `unshare` is not in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct ProcessNamespaces {
    /// Control groups.
    #[n(0)]
    pub cgroup: Option<u32>,
    /// System V IPC and POSIX message queues.
    #[n(1)]
    pub ipc: Option<u32>,
    /// Network.
    #[n(2)]
    pub net: Option<u32>,
    /// Clocks.
    #[n(3)]
    pub time: Option<u32>,
    /// User and group ids, capabilities.
    #[n(4)]
    pub user: Option<u32>,
    /// Host name.
    #[n(5)]
    pub uts: Option<u32>,
}

/// A container. All of it but `id`, `runtime`, `pod.uid`, `within` and `user` comes from the files that its runtime keeps on the host, a
/// moment after its first event: that one may have less than the later ones.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Container")]
pub(super) struct ContainerJson<'a> {
    /// 64 hexadecimal digits, or the runtime's own form.
    id: &'a str,
    /// `docker`, `containerd`, `cri-o`, `podman`, `lxc`, `nspawn` or `buildkit`.
    runtime: Option<&'a str>,
    /// Name that the runtime's user gave, or the container's name in its pod.
    name: Option<&'a str>,
    /// Image as the runtime names it, such as `docker.io/library/nginx:1.27`.
    image: Option<&'a str>,
    /// Id of the image: `sha256:` and 64 digits, or the digits alone.
    image_id: Option<&'a str>,
    /// The pod that the container is in.
    pod: Option<&'a Pod>,
    /// Id of the outermost container around it. Then the rest is by that container's own word.
    within: Option<&'a str>,
    /// Uid of the user whose containers it is among, where these are not root's.
    user: Option<u32>,
    /// Labels of compose, swarm and Kubernetes that say what it is part of.
    labels: Option<&'a BTreeMap<String, String>>,
}

impl<'a> ContainerJson<'a> {
    pub(super) fn new(id: &'a str, info: Option<&'a ContainerInfo>) -> Self {
        let Some(info) = info else {
            return Self { id, runtime: None, name: None, image: None, image_id: None, pod: None, within: None, user: None, labels: None };
        };
        let ContainerInfo { runtime, name, image, image_id, pod, within, user, labels } = info;
        Self {
            id,
            runtime: runtime.as_deref(),
            name: name.as_deref(),
            image: image.as_deref(),
            image_id: image_id.as_deref(),
            pod: pod.as_ref(),
            within: within.as_deref(),
            user: *user,
            labels: Some(labels).filter(|labels| !labels.is_empty()),
        }
    }
}

/// Inodes of the namespaces that the image began in: two processes with the same number share the namespace. Null where the kernel has no
/// such kind.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ProcessNamespaces")]
pub(super) struct NamespacesJson {
    /// Control groups.
    cgroup: Option<u32>,
    /// System V IPC and POSIX message queues.
    ipc: Option<u32>,
    /// Mounts.
    mnt: Option<u32>,
    /// Network.
    net: Option<u32>,
    /// Pids.
    pid: Option<u32>,
    /// Clocks.
    time: Option<u32>,
    /// User and group ids, capabilities.
    user: Option<u32>,
    /// Host name.
    uts: Option<u32>,
}

impl NamespacesJson {
    pub(super) fn new(mnt: Option<u32>, pid: Option<u32>, others: Option<ProcessNamespaces>) -> Self {
        let ProcessNamespaces { cgroup, ipc, net, time, user, uts } = others.unwrap_or_default();
        Self { cgroup, ipc, mnt, net, pid, time, user, uts }
    }
}
