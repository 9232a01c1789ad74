//! Docker: `ROOT/containers/ID/config.v2.json`, written by dockerd before the container starts and at every change.
//!
//! moby, `daemon/container/container.go` (`container/container.go` before 29): `configFileName`, the fields of `Container` (`ID`, `Image` is the id of
//! the image, `Name` begins with a slash) and of `containertypes.Config` (`Image` as the user said it, `Labels`). The root is
//! `daemon/config`'s `data-root`. Kubernetes labels: `k8s.io/kubelet`, `pkg/types/labels.go`, set by cri-dockerd.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Metadata, ParseError, json, labels, take, text};
use crate::enrich::container::id::Runtime;

/// Folders of containers below the host's root: the default, and that of the snap.
pub const FOLDERS: &[&str] = &["var/lib/docker/containers", "var/snap/docker/common/var-lib-docker/containers"];

/// The same below a user's home, of a rootless Docker (moby, `daemon/config/config_linux.go`: `XDG_DATA_HOME`/docker).
pub const HOME_FOLDER: &str = ".local/share/docker/containers";

/// Name of the file in the container's folder.
pub const FILE: &str = "config.v2.json";

#[derive(Deserialize)]
struct File {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "Image", default)]
    image_id: String,
    #[serde(rename = "Config", default)]
    config: Option<Config>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "Image", default)]
    image: String,
    #[serde(rename = "Labels", default)]
    labels: Option<BTreeMap<String, String>>,
}

/// Reads the file of the container `id`.
///
/// # Errors
/// [`ParseError`] when it is no such file, or another container's.
pub fn parse(bytes: &[u8], id: &str) -> Result<Metadata, ParseError> {
    let file: File = json(bytes, Runtime::Docker)?;
    if file.id != id {
        return Err(ParseError::OtherContainer);
    }
    let Config { image, labels: all } = file.config.unwrap_or(Config { image: String::new(), labels: None });
    let mut all = all.unwrap_or_default();
    let name = file.name.strip_prefix('/').map(str::to_owned).unwrap_or(file.name);
    Ok(Metadata {
        name: take(&mut all, &["io.kubernetes.container.name"]).or_else(|| text(name)),
        image: text(image),
        image_id: text(file.image_id),
        pod_name: take(&mut all, &["io.kubernetes.pod.name"]),
        pod_namespace: take(&mut all, &["io.kubernetes.pod.namespace"]),
        pod_uid: take(&mut all, &["io.kubernetes.pod.uid"]),
        labels: labels(&mut all),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::container::runtime::tests::ID;

    fn file(rest: &str) -> Vec<u8> {
        format!(r#"{{"StreamConfig":{{}},"State":{{"Running":true,"Pid":12}},"ID":"{ID}","Created":"2026-01-31T08:00:00Z",{rest}}}"#)
            .into_bytes()
    }

    #[test]
    fn name_and_image() {
        let bytes = file(
            r#""Config":{"Hostname":"0123","Env":["A=hunter2"],"Image":"nginx:1.27","Labels":{"com.docker.compose.project":"shop","x":"y"}},
               "Image":"sha256:ab","Name":"/web","Driver":"overlay2","MountPoints":{}"#,
        );
        let found = parse(&bytes, ID).unwrap();
        let expected = Metadata {
            name: Some("web".into()),
            image: Some("nginx:1.27".into()),
            image_id: Some("sha256:ab".into()),
            labels: BTreeMap::from([("com.docker.compose.project".into(), "shop".into())]),
            ..Metadata::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_pod_s_container_has_its_name_in_the_pod() {
        let bytes = file(
            r#""Name":"/k8s_web_shop-1_default_uid_0","Config":{"Image":"sha256:ab","Labels":{"io.kubernetes.container.name":"web",
               "io.kubernetes.pod.name":"shop-1","io.kubernetes.pod.namespace":"default","io.kubernetes.pod.uid":"b3"}}"#,
        );
        let found = parse(&bytes, ID).unwrap();
        let pod = [found.name, found.pod_name, found.pod_namespace, found.pod_uid].map(Option::unwrap_or_default);
        assert_eq!(pod, ["web", "shop-1", "default", "b3"]);
    }

    #[test]
    fn the_file_of_another_container_is_refused() {
        assert_eq!(parse(&file(r#""Name":"/web""#), "other"), Err(ParseError::OtherContainer));
        assert!(matches!(parse(b"{}", ID), Err(ParseError::Json { .. })));
        assert_eq!(parse(&file(r#""Config":null"#), ID).unwrap(), Metadata::default());
    }
}
