//! Links within the repository lead somewhere, and so do the paths that the text names.

use std::path::{Path, PathBuf};

use super::markdown::Page;

/// What is wrong with the links of `page`, which is the file `path` of the repository at `root`.
pub(super) fn broken(root: &Path, path: &Path, page: &Page) -> Vec<String> {
    let mut found = Vec::new();
    let dir = path.parent().unwrap_or(Path::new(""));
    for (line, link) in &page.links {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
        let file = if target.is_empty() { path.to_path_buf() } else { dir.join(target) };
        if !root.join(&file).exists() {
            found.push(format!("line {line}: {link} leads nowhere"));
        } else if !anchor.is_empty() && !has_anchor(&root.join(&file), anchor) {
            found.push(format!("line {line}: {link} names no heading of that page"));
        }
    }
    let words = page.fences.iter().flat_map(|fence| {
        fence.commands().into_iter().flat_map(|(line, text)| {
            text.split_whitespace().map(|word| (line, word.to_owned())).collect::<Vec<_>>()
        })
    });
    for (line, word) in page.spans.iter().cloned().chain(words) {
        if let Some(path) = path_of_ours(root, &word)
            && !root.join(&path).exists()
        {
            found.push(format!("line {line}: there is no {}", path.display()));
        }
    }
    found
}

fn has_anchor(file: &Path, anchor: &str) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| Page::parse(&text).anchors.iter().any(|a| a == anchor))
}

/// The path if `word` looks like one from the root of this repository.
fn path_of_ours(root: &Path, word: &str) -> Option<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let (top, rest) = word.split_once('/')?;
    let placeholder = rest.contains("NNNN") || rest.contains("..");
    let ours = !["", ".", "target"].contains(&top) && root.join(top).is_dir();
    (ours && !placeholder && word.chars().all(plain)).then(|| PathBuf::from(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_link_a_dead_anchor_and_a_dead_path_are_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("docs")).unwrap();
        std::fs::write(dir.path().join("docs/there.md"), "# Good heading\n").unwrap();
        let text = "[a](there.md) [b](gone.md) [c](there.md#good-heading) [d](there.md#bad) \
                    [e](https://example.org/x) `docs/there.md` `docs/gone.rs` `rpool/cryopod` `docs/<id>`";
        let broken = broken(dir.path(), Path::new("docs/page.md"), &Page::parse(text));
        assert_eq!(broken.len(), 3, "{broken:?}");
        assert!(broken[0].contains("gone.md") && broken[1].contains("#bad") && broken[2].contains("gone.rs"));
    }
}
