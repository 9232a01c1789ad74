//! Container ids, read from control group paths.

/// The container that a process in the control group `path` belongs to: the innermost component that carries an id in a
/// form that container runtimes use (`docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>`, `libpod-<id>.scope`, a
/// bare id of 64 hex digits, `lxc.payload.<name>`, `machine-<name>.scope`).
pub fn container_id(path: &str) -> Option<String> {
    path.split('/').rev().find_map(of_component)
}

fn of_component(component: &str) -> Option<String> {
    let stem = component.strip_suffix(".scope").unwrap_or(component);
    if let Some(name) = stem.strip_prefix("lxc.payload.").or_else(|| stem.strip_prefix("machine-")) {
        return (!name.is_empty()).then(|| name.to_owned());
    }
    let id = stem.rsplit_once('-').map_or(stem, |(_, id)| id);
    // conmon's own scope carries the id of its container and is not inside it.
    let outside = stem.contains("conmon-");
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && !outside).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_every_runtime_s_form() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/system.slice/docker-{id}.scope"),
            format!("/docker/{id}"),
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
            format!("/machine.slice/libpod-{id}.scope/container"),
            format!("/kubepods/burstable/pod1/crio-{id}"),
        ] {
            assert_eq!(container_id(&path).as_deref(), Some(id.as_str()), "{path}");
        }
        assert_eq!(container_id("/lxc.payload.web/init.scope").as_deref(), Some("web"));
    }

    #[test]
    fn what_is_no_container_has_none() {
        let id = "0123456789abcdef".repeat(4);
        for path in ["/", "/user.slice/user-0.slice/session-1.scope", &format!("/machine.slice/libpod-conmon-{id}.scope"), "/docker/abc"] {
            assert_eq!(container_id(path), None, "{path}");
        }
    }
}
