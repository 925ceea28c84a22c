//! Which store a node has: found out, never guessed, and said with the reason.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cryopod_command::Limits;
use cryopod_zfs::{DatasetName, Health, PoolName, Zfs};
use serde::Serialize;

use super::{DirStore, Store, StoreChoice, StoreConfig, StoreError, StoreKind, ZfsStore};
use crate::lock::Locks;

/// The pool of a Proxmox VE installation on ZFS.
const PROXMOX_POOL: &str = "rpool";

/// What was chosen and why, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// Which kind.
    pub kind: StoreKind,
    /// Dataset or directory.
    pub place: String,
    /// One sentence.
    pub why: String,
}

/// Opens the store that the configuration asks for, or the best one there is. `zfs` is None where the tool is not
/// installed.
pub fn open(
    config: &StoreConfig,
    zfs: Option<Arc<dyn Zfs>>,
    limits: &Limits,
) -> Result<(Arc<Store>, Chosen), StoreError> {
    let locks = Locks::open(&config.locks)?;
    let (found, chosen) = choose(config, zfs, limits)?;
    let store = match found {
        Some((zfs, root)) => Store::Zfs(ZfsStore::open(zfs, root, config.dir.clone(), locks, limits)?),
        None => Store::Dir(DirStore::open(config.dir.clone(), locks)?),
    };
    Ok((Arc::new(store), chosen))
}

/// What [`open`] would open, and the bytes that are free there; makes nothing and marks nothing.
pub fn look(
    config: &StoreConfig,
    zfs: Option<Arc<dyn Zfs>>,
    limits: &Limits,
) -> Result<(Chosen, Option<u64>), StoreError> {
    let (found, chosen) = choose(config, zfs, limits)?;
    let free = match found {
        Some((zfs, root)) => ZfsStore::free_at(zfs.as_ref(), &root, limits)?,
        None => Some(DirStore::look(&config.dir)?),
    };
    Ok((chosen, free))
}

/// Where a ZFS store is.
type Place = (Arc<dyn Zfs>, DatasetName);

/// The root dataset, or None for the directory.
fn choose(
    config: &StoreConfig,
    zfs: Option<Arc<dyn Zfs>>,
    limits: &Limits,
) -> Result<(Option<Place>, Chosen), StoreError> {
    let found = match (config.choice, zfs) {
        (StoreChoice::Dir, _) => Err("the configuration asks for it".to_owned()),
        (_, None) => Err("the zfs command is not installed".to_owned()),
        (_, Some(zfs)) => find_root(config, zfs.as_ref(), limits)?.map(|(root, why)| (zfs, root, why)),
    };
    match found {
        Ok((zfs, root, why)) => {
            let chosen = Chosen { kind: StoreKind::Zfs, place: root.to_string(), why };
            Ok((Some((zfs, root)), chosen))
        }
        Err(why) if config.choice == StoreChoice::Zfs => Err(StoreError::NoPool { why }),
        Err(why) => {
            let place = config.dir.display().to_string();
            Ok((None, Chosen { kind: StoreKind::Dir, place, why }))
        }
    }
}

/// The root dataset with the reason, or the reason why there is none. Only what ZFS says counts as "no pool"; an error
/// is an error.
fn find_root(
    config: &StoreConfig,
    zfs: &dyn Zfs,
    limits: &Limits,
) -> Result<Result<(DatasetName, String), String>, StoreError> {
    let pools = match zfs.pools(limits) {
        Ok(pools) => pools,
        Err(cryopod_zfs::Error::Tool { .. } | cryopod_zfs::Error::Unsupported { .. })
            if config.root.is_none() && config.choice == StoreChoice::Auto =>
        {
            return Ok(Err("ZFS is not usable on this node".to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(root) = &config.root {
        if pools.iter().any(|pool| pool.name == root.pool()) {
            return Ok(Ok((root.clone(), "store.zfs.root of the configuration".to_owned())));
        }
        return match config.choice {
            // A configured root that is not there is a mistake or an outage, not a reason to write elsewhere.
            StoreChoice::Auto | StoreChoice::Zfs => Err(StoreError::NoPool {
                why: format!("pool {} of store.zfs.root is not imported", root.pool()),
            }),
            StoreChoice::Dir => Ok(Err("the configuration asks for it".to_owned())),
        };
    }
    let usable: Vec<&PoolName> = pools
        .iter()
        .filter(|pool| !pool.read_only && matches!(pool.health, Health::Online | Health::Degraded))
        .map(|pool| &pool.name)
        .collect();
    let snapshotter = config.snapshotter.as_deref().and_then(pool_of);
    let (pool, why) = match (&usable[..], snapshotter) {
        ([], _) => return Ok(Err("no usable ZFS pool is imported".to_owned())),
        (pools, Some(pool)) if pools.contains(&&pool) => {
            let why = format!("containerd's snapshotter is on pool {pool}");
            (pool, why)
        }
        (pools, _) if pools.iter().any(|pool| pool.as_str() == PROXMOX_POOL) => {
            let pool = PROXMOX_POOL.parse()?;
            (pool, format!("pool {PROXMOX_POOL} is there"))
        }
        ([only], _) => ((*only).clone(), format!("{only} is the only pool")),
        (several, _) => {
            let names: Vec<&str> = several.iter().map(|pool| pool.as_str()).collect();
            let why = format!("there are several pools ({}): set store.zfs.root", names.join(", "));
            return Ok(Err(why));
        }
    };
    Ok(Ok((pool.root().child("cryopod")?, why)))
}

/// The pool of the ZFS file system mounted at `path`.
fn pool_of(path: &Path) -> Option<PoolName> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ');
        let (source, target, kind) = (fields.next()?, fields.next()?, fields.next()?);
        if kind == "zfs" && Path::new(target) == path { source.split('/').next()?.parse().ok() } else { None }
    })
}
