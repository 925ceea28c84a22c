use super::*;
use crate::testing::{Archive, Head};

fn read(bytes: &[u8]) -> Result<Vec<String>, TarError> {
    let mut reader = Reader::new(bytes);
    let mut paths = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        paths.push(String::from_utf8(entry.path).unwrap());
    }
    Ok(paths)
}

#[test]
fn an_archive_ends_with_its_mark_and_nothing_else() {
    let archive = || Archive::new().file("a", b"1").file("b", &[7; 600]);
    assert_eq!(read(&archive().finish()).unwrap(), ["a", "b"]);
    assert_eq!(read(&[archive().finish(), vec![0; 9000]].concat()).unwrap(), ["a", "b"]);
    assert_eq!(read(b"").unwrap(), [""; 0]);
    let whole = archive().finish();
    for length in
        [1, 511, 512, 700, 1024, 1100, 2000, whole.len() - 1024, whole.len() - 512, whole.len() - 513]
    {
        assert!(matches!(read(&whole[..length]), Err(TarError::Truncated)), "{length}");
    }
    for trailing in [archive().finish(), b"x".to_vec()] {
        assert!(matches!(read(&[archive().finish(), trailing].concat()), Err(TarError::Trailing)));
    }
}

#[test]
fn damaged_headers_and_foreign_types_are_refused() {
    let mut bytes = Archive::new().file("a", b"1").finish();
    bytes[3] = b'x';
    assert!(matches!(read(&bytes), Err(TarError::Checksum)));
    let archive = Archive::new().entry(&Head::new("vol", b'V'), b"").finish();
    assert_eq!(
        read(&archive).unwrap_err().to_string(),
        "entry vol has type 'V', which no root file system has"
    );
}

#[test]
fn an_extension_header_is_bounded_before_it_is_read() {
    let head = crate::testing::header(&Head::new("long", b'L'), 1 << 30);
    assert!(matches!(read(&head), Err(TarError::LongExtension { .. })));
    let many = (0..20).fold(Archive::new(), |archive, _| archive.pax(&[("path", b"x")])).finish();
    assert!(matches!(read(&many), Err(TarError::TooManyExtensions)));
}

#[test]
fn a_sparse_map_that_contradicts_itself_is_refused() {
    for map in ["0,8,4,4", "0,9", "8,8", "0,4", "0", "18446744073709551615,2"] {
        let records: [(&str, &[u8]); 2] = [("GNU.sparse.size", b"10"), ("GNU.sparse.map", map.as_bytes())];
        let archive = Archive::new().pax(&records).file("s", b"12345678").finish();
        assert!(matches!(read(&archive), Err(TarError::Sparse { .. })), "{map}");
    }
}
