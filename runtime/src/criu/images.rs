//! A view of memory images without the System V objects that the new pod's ipc namespace has already.
//!
//! Containers of a pod share one ipc namespace, so each one's images hold all of its objects (`ipcns-shm-*.img`, …), and
//! CRIU creates them exclusively: the second container of a pod would fail. For it, a directory of links to the images is
//! made in which these three files are empty; processes attach to the objects that the first container brought back, by
//! their numbers, which CRIU keeps. The images themselves are never touched.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::CriuError;

/// Bytes of an image without entries: two magic numbers.
const EMPTY: usize = 8;

/// Whether the images bring System V objects along.
pub fn have_sysv_objects(images: &Path) -> Result<bool, CriuError> {
    let failed = |source| CriuError::File { action: "read", path: images.to_owned(), source };
    for entry in std::fs::read_dir(images).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if is_object_image(&entry.file_name().to_string_lossy())
            && entry.metadata().map_err(failed)?.len() > EMPTY as u64
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes the view in `view`, which is replaced, and returns it.
pub fn without_sysv_objects(images: &Path, view: &Path) -> Result<PathBuf, CriuError> {
    let failed = |source| CriuError::File { action: "make", path: view.to_owned(), source };
    make(images, view).map_err(failed)?;
    Ok(view.to_owned())
}

fn make(images: &Path, view: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(view) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(view)?;
    let images = std::fs::canonicalize(images)?;
    // Restored tasks read images after they have entered the container's root, where an absolute link leads elsewhere; a
    // relative one starts at the directory that CRIU holds open.
    let depth = std::fs::canonicalize(view)?.components().count().saturating_sub(1);
    let up: PathBuf = std::iter::repeat_n("..", depth).collect();
    let relative = up.join(images.strip_prefix("/").unwrap_or(&images));
    for entry in std::fs::read_dir(&images)? {
        let name = entry?.file_name();
        let (from, to) = (images.join(&name), view.join(&name));
        if is_object_image(&name.to_string_lossy()) {
            let bytes = std::fs::read(&from)?;
            std::fs::write(to, bytes.get(..EMPTY).unwrap_or(&bytes))?;
        } else {
            // `parent` is a relative link to the previous round; through this one it still leads there.
            symlink(relative.join(&name), to)?;
        }
    }
    Ok(())
}

fn is_object_image(name: &str) -> bool {
    ["ipcns-shm-", "ipcns-sem-", "ipcns-msg-"].iter().any(|kind| name.starts_with(kind))
        && name.ends_with(".img")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_view_has_everything_but_the_objects() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let images = dir.path().join("2");
        std::fs::create_dir(&images).expect("images");
        std::fs::create_dir(dir.path().join("1")).expect("parent");
        std::fs::write(dir.path().join("1/pages-1.img"), "earlier").expect("file");
        symlink("../1", images.join("parent")).expect("link");
        for (name, bytes) in [
            ("core-1.img", &b"core"[..]),
            ("ipcns-shm-10.img", b"magic123entries"),
            ("ipcns-sem-10.img", b"magic123"),
            ("ipcns-var-10.img", b"magic123sysctl"),
        ] {
            std::fs::write(images.join(name), bytes).expect("file");
        }
        assert!(have_sysv_objects(&images).expect("readable"));

        let view = dir.path().join("work/view");
        for _ in 0..2 {
            without_sysv_objects(&images, &view).expect("made");
        }
        let read = |name: &str| std::fs::read(view.join(name)).expect("readable");
        assert_eq!(read("core-1.img"), b"core");
        assert_eq!(read("ipcns-shm-10.img"), b"magic123");
        assert_eq!(read("ipcns-var-10.img"), b"magic123sysctl");
        assert_eq!(read("parent/pages-1.img"), b"earlier");
        assert!(!have_sysv_objects(&view).expect("readable"));
        assert_eq!(std::fs::read(images.join("ipcns-shm-10.img")).expect("untouched"), b"magic123entries");
    }
}
