//! The image that nodes boot: kernel, initial RAM disk and root file system, made of layers that are cached each under
//! the hash of its recipe:
//!
//! ```text
//! packages/<key>      root tree: Debian packages                         xtask/node/packages
//! modules/<key>       zfs.ko, spl.ko for the tree's kernel                built by zfs-dkms in a copy of the tree
//! tools/<name>-<key>  containerd, crictl, critest, CNI, OCI validation …  e2e/tools/<name>/go.mod
//! image/<key>         all of it, with configuration, as a disk            xtask/node/tree, e2e/images
//! ```
//!
//! A layer is made under a temporary name and renamed when it is whole; one lock per layer keeps builders apart.

pub(crate) mod archive;
mod disk;
mod error;
mod layer;
mod modules;
mod packages;
mod tools;
mod workloads;

use std::path::PathBuf;

pub(crate) use error::Error;
pub(crate) use tools::Tools;

use crate::cache::Cache;
use crate::host;

/// A complete image.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Its key.
    pub(crate) key: String,
    dir: PathBuf,
}

impl Image {
    /// The image `key`, which is in the cache.
    pub(crate) fn cached(cache: &Cache, key: &str) -> Option<Self> {
        let dir = cache.root().join("image").join(key);
        dir.is_dir().then(|| Self { key: key.to_owned(), dir })
    }

    /// The image of this checkout; builds what is missing of it.
    pub(crate) fn build(cache: &Cache) -> Result<Self, Error> {
        host::prepare(cache)?;
        let packages = packages::layer(cache)?;
        let modules = modules::layer(cache, &packages)?;
        let tools = Tools::NODE.iter().map(|tools| tools.layer(cache)).collect::<Result<Vec<_>, _>>()?;
        let image = disk::image(cache, &packages, &modules, &tools)?;
        forget_old(cache)?;
        Ok(image)
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    pub(crate) fn initrd(&self) -> PathBuf {
        self.dir.join("initrd")
    }

    pub(crate) fn root_disk(&self) -> PathBuf {
        self.dir.join("root.raw")
    }
}

/// Keeps the cache from growing with every change of a recipe. An image that the disks of a node stand on stays.
fn forget_old(cache: &Cache) -> Result<(), Error> {
    let nodes = crate::machine::Machine::names(cache);
    let states = nodes.iter().filter_map(|name| crate::node::State::read(&cache.node(name)).ok().flatten());
    let images: Vec<String> = states.map(|state| state.image).collect();
    layer::forget(cache, "image", "", &images)?;
    layer::forget(cache, "modules", "", &[])?;
    layer::forget(cache, "packages", "", &[])?;
    for tools in Tools::NODE {
        layer::forget(cache, "tools", &tools.prefix(), &[])?;
    }
    Ok(())
}

/// A tree of the node's Debian with these packages and what they depend on, in the cache.
pub(crate) fn bare_tree(cache: &Cache, included: &[&str]) -> Result<PathBuf, Error> {
    Ok(packages::bare(cache, included)?.dir.join("tree"))
}
