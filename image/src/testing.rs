//! Archives made by hand for tests, also such as no program would write.

use std::io::Write;

/// A tar archive under construction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Archive(Vec<u8>);

/// Fields of a header.
#[derive(Debug, Clone)]
pub(crate) struct Head<'a> {
    pub(crate) path: &'a str,
    pub(crate) kind: u8,
    pub(crate) link: &'a str,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: u64,
    pub(crate) device: (u32, u32),
}

impl<'a> Head<'a> {
    pub(crate) fn new(path: &'a str, kind: u8) -> Self {
        Self { path, kind, link: "", mode: 0o644, owner: (0, 0), mtime: 1_000_000, device: (0, 0) }
    }
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn entry(mut self, head: &Head<'_>, data: &[u8]) -> Self {
        self.0.extend(header(head, data.len()));
        self.data(data);
        self
    }

    pub(crate) fn file(self, path: &str, data: &[u8]) -> Self {
        self.entry(&Head::new(path, b'0'), data)
    }

    pub(crate) fn dir(self, path: &str) -> Self {
        self.entry(&Head { mode: 0o755, ..Head::new(path, b'5') }, b"")
    }

    pub(crate) fn symlink(self, path: &str, link: &str) -> Self {
        self.entry(&Head { link, mode: 0o777, ..Head::new(path, b'2') }, b"")
    }

    pub(crate) fn link(self, path: &str, link: &str) -> Self {
        self.entry(&Head { link, ..Head::new(path, b'1') }, b"")
    }

    /// A pax header for the entry that follows.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length.to_string().len() + rest != length {
                length += 1;
            }
            write!(data, "{length} {key}=").unwrap();
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(&Head::new("pax", b'x'), &data)
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn data(&mut self, data: &[u8]) {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A header with the right checksum.
pub(crate) fn header(head: &Head<'_>, size: usize) -> [u8; 512] {
    let mut block = [0u8; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, head.path.as_bytes());
    put(100, format!("{:07o}", head.mode).as_bytes());
    put(108, format!("{:07o}", head.owner.0).as_bytes());
    put(116, format!("{:07o}", head.owner.1).as_bytes());
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{:011o}", head.mtime).as_bytes());
    put(156, &[head.kind]);
    put(157, head.link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, format!("{:07o}", head.device.0).as_bytes());
    put(337, format!("{:07o}", head.device.1).as_bytes());
    put(148, b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 1).unwrap()
}
