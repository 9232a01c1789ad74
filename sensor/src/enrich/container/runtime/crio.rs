//! CRI-O: `RUNROOT/overlay-containers/ID/userdata/config.json`, written before the container starts; a copy is below the graph root.
//!
//! containers/storage, `store.go` (`ContainerRunDirectory`; the roots are those of containers-storage.conf(5)); CRI-O, `internal/factory/container/container.go`
//! (`SpecAddAnnotations`) and `server/container_create.go` (the kubelet's labels become annotations as they are), `pkg/annotations/internal.go` (names).

use super::{Metadata, ParseError, annotations, labels, take};
use crate::enrich::container::id::Runtime;

/// Folders below the host's root that have one for each container.
pub const FOLDERS: &[&str] = &["run/containers/storage/overlay-containers", "var/lib/containers/storage/overlay-containers"];

/// The file below the container's folder.
pub const FILE: &str = "userdata/config.json";

/// Reads the file. The image is a name that CRI-O has for it, and only without one what the kubelet asked for, which may be an id.
///
/// # Errors
/// [`ParseError`] when it is no such file.
pub fn parse(bytes: &[u8]) -> Result<Metadata, ParseError> {
    let mut all = annotations(bytes, Runtime::CriO)?;
    Ok(Metadata {
        name: take(&mut all, &["io.kubernetes.container.name", "io.kubernetes.cri-o.ContainerName", "io.kubernetes.cri-o.Name"]),
        image: take(&mut all, &["io.kubernetes.cri-o.ImageName", "io.kubernetes.cri-o.Image"]),
        image_id: take(&mut all, &["io.kubernetes.cri-o.ImageRef"]),
        pod_name: take(&mut all, &["io.kubernetes.pod.name", "io.kubernetes.cri-o.KubeName"]),
        pod_namespace: take(&mut all, &["io.kubernetes.pod.namespace", "io.kubernetes.cri-o.Namespace"]),
        pod_uid: take(&mut all, &["io.kubernetes.pod.uid"]),
        labels: labels(&mut all),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_s_container() {
        let bytes = br#"{"ociVersion":"1.1.0","annotations":{"io.container.manager":"cri-o","io.kubernetes.container.name":"web",
            "io.kubernetes.cri-o.ContainerType":"container","io.kubernetes.cri-o.Image":"4f67c83422ec","io.kubernetes.cri-o.ImageName":"quay.io/shop/web:2",
            "io.kubernetes.cri-o.ImageRef":"4f67c83422ec747235357c04556616234e66fc3fa39cb4f40b2d4441ddd8f100",
            "io.kubernetes.cri-o.Name":"k8s_web_shop-1_default_b3_0","io.kubernetes.pod.name":"shop-1","io.kubernetes.pod.namespace":"default",
            "io.kubernetes.pod.uid":"b3"}}"#;
        let expected = Metadata {
            name: Some("web".into()),
            image: Some("quay.io/shop/web:2".into()),
            image_id: Some("4f67c83422ec747235357c04556616234e66fc3fa39cb4f40b2d4441ddd8f100".into()),
            pod_name: Some("shop-1".into()),
            pod_namespace: Some("default".into()),
            pod_uid: Some("b3".into()),
            ..Metadata::default()
        };
        assert_eq!(parse(bytes).unwrap(), expected);
    }

    #[test]
    fn an_image_without_a_name_is_what_was_asked_for() {
        let found = parse(br#"{"annotations":{"io.kubernetes.cri-o.Image":"4f67","io.kubernetes.cri-o.ImageName":""}}"#).unwrap();
        assert_eq!(found.image.as_deref(), Some("4f67"));
    }
}
