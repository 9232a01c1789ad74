//! containerd: the OCI bundle `STATE/io.containerd.runtime.v2.task/NAMESPACE/ID/config.json`, written before the task is made.
//!
//! containerd, `core/runtime/v2/bundle.go` (`NewBundle`) and `core/runtime/v2/task_manager.go` (the plugin's name is the folder's); the state folder is
//! `defaults/defaults_unix.go`'s `DefaultStateDir`. Annotations of Kubernetes: `pkg/cri/annotations/annotations.go`; before 1.6 these are the
//! container's type and its sandbox alone. nerdctl, `pkg/cmd/container/create.go`, copies its labels (`pkg/labels/labels.go`) into annotations: they
//! have the name, not the image, which is in containerd's database only.

use super::{Metadata, ParseError, annotations, labels, take};
use crate::enrich::container::id::Runtime;

/// State folders below the host's root: containerd's own, and those of k3s (also RKE2), k0s and MicroK8s.
pub const STATES: &[&str] = &["run/containerd", "run/k3s/containerd", "run/k0s/containerd", "var/snap/microk8s/common/run/containerd"];

/// Folder in the state folder that has one for each namespace.
pub const TASKS: &str = "io.containerd.runtime.v2.task";

/// Namespaces that are read, at most: `k8s.io`, `default`, `moby`, and whatever `ctr -n` was given.
pub const NAMESPACES_MAX: usize = 64;

/// Reads a bundle.
///
/// # Errors
/// [`ParseError`] when it is none.
pub fn parse(bytes: &[u8]) -> Result<Metadata, ParseError> {
    let mut all = annotations(bytes, Runtime::Containerd)?;
    Ok(Metadata {
        name: take(&mut all, &["io.kubernetes.cri.container-name", "nerdctl/name"]),
        image: take(&mut all, &["io.kubernetes.cri.image-name"]),
        image_id: None,
        pod_name: take(&mut all, &["io.kubernetes.cri.sandbox-name"]),
        pod_namespace: take(&mut all, &["io.kubernetes.cri.sandbox-namespace"]),
        pod_uid: take(&mut all, &["io.kubernetes.cri.sandbox-uid"]),
        labels: labels(&mut all),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_s_container() {
        let bytes = br#"{"ociVersion":"1.2.0","process":{"args":["nginx"],"env":["A=hunter2"]},"root":{"path":"rootfs"},"annotations":{
            "io.kubernetes.cri.container-name":"web","io.kubernetes.cri.container-type":"container","io.kubernetes.cri.image-name":"docker.io/library/nginx:1.27",
            "io.kubernetes.cri.sandbox-id":"f00","io.kubernetes.cri.sandbox-name":"shop-1","io.kubernetes.cri.sandbox-namespace":"default",
            "io.kubernetes.cri.sandbox-uid":"b3"}}"#;
        let expected = Metadata {
            name: Some("web".into()),
            image: Some("docker.io/library/nginx:1.27".into()),
            pod_name: Some("shop-1".into()),
            pod_namespace: Some("default".into()),
            pod_uid: Some("b3".into()),
            ..Metadata::default()
        };
        assert_eq!(parse(bytes).unwrap(), expected);
    }

    #[test]
    fn what_is_not_there_is_not_guessed() {
        for bytes in
            [&br#"{"annotations":null}"#[..], br#"{"annotations":{"io.kubernetes.cri.image-name":""}}"#, br#"{"ociVersion":"1.0.2"}"#]
        {
            assert_eq!(parse(bytes).unwrap(), Metadata::default());
        }
        let nerdctl = parse(br#"{"annotations":{"nerdctl/name":"web","nerdctl/namespace":"default"}}"#).unwrap();
        assert_eq!((nerdctl.name.as_deref(), nerdctl.image), (Some("web"), None));
    }
}
