//! `node containerd VERSION`: another containerd in a running node, with its own Go shim and `ctr`.
//!
//! The programs of both versions stay in `/usr/local/lib/containerd-VERSION`; those in use are in `/usr/local/bin`.

use crate::cache::Cache;
use crate::demo::Containerd;
use crate::image::{self, Tools};
use crate::node::{self, Node};
use crate::progress::Step;

/// Why the node has the containerd it had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Image(#[from] image::Error),
    #[error(transparent)]
    Node(#[from] node::Error),
}

/// Keeps the programs of the image at the first time, then puts the wanted ones in their place.
fn script(version: &str) -> String {
    format!(
        "bin=/usr/local/bin; lib=/usr/local/lib
         if [ ! -d $lib/containerd-2.3 ]; then
           mkdir $lib/containerd-2.3.half
           cp -p $bin/containerd $bin/containerd-shim-runc-v2 $bin/ctr $lib/containerd-2.3.half/
           mv $lib/containerd-2.3.half $lib/containerd-2.3
         fi
         systemctl stop containerd
         cp -p --remove-destination $lib/containerd-{version}/* $bin/
         systemctl start containerd
         for i in $(seq 300); do ctr version >/dev/null 2>&1 && break; sleep 0.2; done
         [ -n \"$(ctr -n k8s.io images list -q)\" ] || node-images >/dev/null
         containerd --version"
    )
}

/// Makes `node` run `version`; builds it where the cache does not have it.
pub(crate) fn exchange(cache: &Cache, node: &Node, version: Containerd) -> Result<(), Error> {
    let version = match version {
        Containerd::Current => "2.3",
        Containerd::Older => {
            let programs = Tools::OLDER_CONTAINERD.programs(cache)?;
            let target = "/usr/local/lib/containerd-2.2";
            if node.run(["test", "-d", target])?.code != 0 {
                let step = Step::begin("copying containerd 2.2 into the node", None);
                node.copy_in(&programs, target)?;
                step.done();
            }
            "2.2"
        }
    };
    let step = Step::begin(format!("restarting node '{}' with containerd {version}", node.name()), None);
    let said = node.script(&script(version))?;
    step.done();
    println!("{}", said.trim());
    Ok(())
}
