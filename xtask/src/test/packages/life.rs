//! The life of the packages, in a tree of Debian 13 with nothing but the packages that they depend on. No service manager runs
//! there, and policy-rc.d forbids to start anything, as in an image that is being built.

use std::fs;
use std::path::{Path, PathBuf};

use cryopod_command::{Command, Limits};

use super::Check;
use crate::cache::Cache;
use crate::image;

/// What the packages depend on, and the helper of their scripts.
const INCLUDED: &[&str] = &["crun", "init-system-helpers"];

/// Steps in their order: what it shows, and a script of `sh -eu` in the tree. `$first` and `$next` are the packages of two
/// versions, `$bundle` is where a running pod's bundle is.
const STEPS: &[(&str, &str)] = &[
    (
        "install: programs start, recovery is enabled, the agent is not",
        "dpkg -i $first
         cryopod --version; cryopod-agent --version; cryopod-lxc --version
         cryopod-agent crds | grep -q 'name: podcheckpoints.cryopod.dev'
         containerd-shim-cryopod-lxc-v2 -v
         test -L /etc/systemd/system/multi-user.target.wants/cryopod-recover.service
         ! ls /etc/systemd/system/multi-user.target.wants/cryopod-agent.service",
    ),
    ("install: containerd's configuration is left alone", "test ! -e /etc/containerd"),
    (
        "upgrade: what runs goes on with its program, and configuration that was changed stays",
        "echo '# mine' >> /etc/cryopod/config.toml
         cryopod-agent await termination & running=$!
         sleep 1
         before=$(readlink /proc/$running/exe)
         mkdir -p $bundle; echo /usr/bin/containerd-shim-cryopod-v2 > $bundle/shim-binary-path
         dpkg -i --force-confdef $next
         kill -0 $running
         test \"$(readlink /proc/$running/exe)\" = \"$before (deleted)\"
         test -x /usr/bin/cryopod-agent
         grep -q '^# mine' /etc/cryopod/config.toml
         dpkg -s cryopod | grep -q '^Version: .*-2$'
         kill $running; wait $running",
    ),
    (
        "remove: refused while a pod runs, which needs the shim to be taken away",
        "dpkg -r cryopod-agent
         if dpkg -r cryopod 2> /tmp/said; then exit 1; fi
         grep -q '1 pods and containers run with cryopod' /tmp/said
         test -x /usr/bin/containerd-shim-cryopod-v2
         dpkg --configure -a",
    ),
    (
        "remove: programs go, configuration and checkpoints stay",
        "rm -r $bundle
         mkdir -p /var/lib/cryopod/store/checkpoints/a /var/lib/cryopod/journal
         dpkg -r cryopod
         test ! -e /usr/bin/cryopod; test ! -e /usr/bin/containerd-shim-cryopod-lxc-v2
         test -e /etc/cryopod/config.toml; test -d /var/lib/cryopod/store/checkpoints/a",
    ),
    (
        "purge: configuration goes, checkpoints stay",
        "for package in cryopod cryopod-agent kubectl-cryopod; do
             if dpkg -s $package > /dev/null 2>&1; then dpkg -P $package; fi
         done
         test ! -e /etc/cryopod; test ! -e /etc/default/cryopod-agent
         test -d /var/lib/cryopod/store/checkpoints/a; test ! -e /var/lib/cryopod/journal
         rm -r /var/lib/cryopod",
    ),
    (
        "purge: nothing else is left over",
        "find / -xdev -name '*cryopod*' -not -path '/packages/*' -not -path '/proc/*' | tee /tmp/left; test ! -s /tmp/left",
    ),
    (
        "install again after a purge",
        "dpkg -i $next; cryopod --version; test -L /etc/systemd/system/multi-user.target.wants/cryopod-recover.service",
    ),
];

/// Runs them.
pub(super) fn checks(
    cache: &Cache,
    work: &Path,
    first: &[PathBuf],
    next: &[PathBuf],
    limits: &Limits,
    check: &mut Check<'_>,
) -> Result<(), String> {
    let debian = image::bare_tree(cache, INCLUDED).map_err(|error| crate::report::chain(&error))?;
    let tree = work.join("tree");
    let copy = Command::new("cp").args(["-a", "--reflink=auto", "-T"]).arg(&debian).arg(&tree);
    copy.run(limits).map_err(|error| error.to_string())?;
    let policy = tree.join("usr/sbin/policy-rc.d");
    fs::write(&policy, "#!/bin/sh\nexit 101\n").map_err(|error| error.to_string())?;
    Command::new("chmod").arg("755").arg(&policy).run(limits).map_err(|error| error.to_string())?;
    let inside = |packages: &[PathBuf], folder: &str| -> Result<String, String> {
        let to = tree.join("packages").join(folder);
        fs::create_dir_all(&to).map_err(|error| error.to_string())?;
        let mut names = Vec::new();
        for package in packages {
            let name = package.file_name().unwrap_or_default();
            fs::copy(package, to.join(name)).map_err(|error| error.to_string())?;
            names.push(format!("/packages/{folder}/{}", name.to_string_lossy()));
        }
        Ok(names.join(" "))
    };
    let (first, next) = (inside(first, "first")?, inside(next, "next")?);
    for (name, script) in STEPS {
        // A namespace of mounts and processes each: nothing that a step starts or mounts outlives it.
        let enter = "mount -t proc proc \"$1/proc\"; mount -t tmpfs tmpfs \"$1/run\"; mount --bind /dev/null \"$1/dev/null\"; \
                     cp -a \"$1/kept/.\" \"$1/run/\" 2> /dev/null || true; \
                     chroot \"$1\" /bin/sh -euxc \"$2\" && { rm -rf \"$1/kept\"; cp -a \"$1/run\" \"$1/kept\"; }";
        let script = format!(
            "first='{first}'; next='{next}'; bundle=/run/containerd/io.containerd.runtime.v2.task/k8s.io/pod\n{script}"
        );
        let step = Command::new("unshare").args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-euc",
            enter,
            "step",
        ]);
        let step =
            step.arg(&tree).arg(script).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        check(name, super::quiet(step, limits));
    }
    Ok(())
}
