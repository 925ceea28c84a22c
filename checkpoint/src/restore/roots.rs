//! Roots that were made for containers go with them: at their deletion, or, when a power cut took container and bundle
//! together, with the next recovery.

use std::fs;
use std::io;

use cryopod_command::Limits;
use cryopod_zfs::{Error as ZfsError, Wanted};

use crate::journal::boot_id;
use crate::settle::{self, Adopted};
use crate::store::{BOOT, Store, StoreError, ZfsStore};

/// This boot, for the property that tells later ones apart; empty, and then never taken for another, if it is unknown.
pub(crate) fn boot() -> String {
    boot_id().unwrap_or_default()
}

/// Names a container of a containerd namespace for the store: unique on the node, since ids are so in their namespace
/// alone. Neither ids of containerd nor names of standalone containers, which are their own keys, have a colon.
pub fn container_key(namespace: &str, id: &str) -> String {
    format!("{namespace}:{id}")
}

/// Removes the root that was made for a container; none is success. Called when the container is deleted, with the root
/// unmounted. What checkpoints still need of it moves into the store; the caller should then begin to settle them.
pub fn forget(store: &Store, container: &str, limits: &Limits) -> Result<Adopted, StoreError> {
    match store {
        Store::Dir(store) => {
            let path = store.container(container);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(StoreError::io("remove", &path)(error))
                }
                _ => Ok(Adopted::Nothing),
            }
        }
        Store::Zfs(store) => {
            let adopted = settle::let_go(store, &store.container(container)?, limits)?;
            clear_mountpoint(store, container)?;
            Ok(adopted)
        }
    }
}

fn clear_mountpoint(store: &ZfsStore, container: &str) -> Result<(), StoreError> {
    let path = store.dir().join("containers").join(container);
    match fs::remove_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", &path)(error)),
        _ => Ok(()),
    }
}

/// Forgets the roots of containers that ended with an earlier boot, whose bundles went with it; returns how many.
pub(crate) fn reap(store: &ZfsStore, limits: &Limits) -> Result<u64, StoreError> {
    let now = boot();
    let wanted = Wanted::Named(vec![BOOT.to_owned()]);
    let mut reaped = 0;
    for root in store.children(&store.root().child("containers")?, wanted, limits)? {
        let earlier = root.properties.own(BOOT).is_some_and(|made| !made.is_empty() && made != now);
        if !earlier || now.is_empty() {
            continue;
        }
        match settle::let_go(store, &root.name, limits) {
            Ok(_) => reaped += 1,
            // Somebody looks at it; the next recovery comes again.
            Err(StoreError::Zfs(ZfsError::Busy { .. })) => continue,
            Err(error) => return Err(error),
        }
        clear_mountpoint(store, root.name.leaf())?;
    }
    Ok(reaped)
}
