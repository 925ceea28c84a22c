//! Takes away the clone that stands under somebody's dataset name, to give the name back.
//!
//! After a power failure the name may be free, and its owner may have made a new dataset under it and written to it
//! before recovery comes. So what has the name is destroyed only if it is the clone, by its marks and by its origin. ZFS
//! marks a clone after it has made it: one without marks is ours as well while nothing is written to it.

use cryopod_command::Limits;
use cryopod_zfs::{Dataset, DatasetName};

use crate::store::{ID, KIND, StoreError, ZfsStore};

/// Destroys the clone of that checkpoint; absent is success. `aside` is where the dataset of that name waits, `origin`
/// says whether a dataset comes from where the clone does.
pub(crate) fn destroy(
    store: &ZfsStore,
    dataset: &DatasetName,
    id: &str,
    aside: &DatasetName,
    origin: impl Fn(&Dataset) -> bool,
    limits: &Limits,
) -> Result<(), StoreError> {
    let Some(found) = store.zfs.dataset(dataset, limits)? else { return Ok(()) };
    let marked = match (found.properties.own(KIND), found.properties.own(ID)) {
        (Some(kind), Some(of)) => kind == "clone" && of == id,
        (None, None) => {
            let written = found.properties.property("written").map(|written| written.value.as_str());
            found.origin.is_some() && written == Some("0")
        }
        _ => false,
    };
    if marked && origin(&found) {
        return store.destroy_if_there(dataset, limits);
    }
    Err(StoreError::Foreign { dataset: dataset.clone(), id: id.to_owned(), aside: aside.clone() })
}
