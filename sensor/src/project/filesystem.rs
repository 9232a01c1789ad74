//! Kinds of file systems by their `s_magic`.

/// include/uapi/linux/magic.h, and the file systems' own headers for those that it does not have.
const NAMES: &[(u32, &str)] = &[
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x9584_58f6, "hugetlbfs"),
    (0x794c_7630, "overlay"),
    (0x6573_5546, "fuse"),
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "ceph"),
    (0x7371_7368, "squashfs"),
    (0xe0f5_e1e2, "erofs"),
    (0xf2f5_2010, "f2fs"),
    (0xca45_1a4e, "bcachefs"),
    (0x2fc1_2fc1, "zfs"),
    (0x4d44, "vfat"),
    (0x2011_bab0, "exfat"),
    (0x7366_746e, "ntfs3"),
    (0x9660, "iso9660"),
    (0x1501_3346, "udf"),
    (0xf15f, "ecryptfs"),
    (0x9fa0, "proc"),
];

/// The name, or the number where there is none; `None` for 0, which is no file system. ext2 and ext3 are `ext4`: their number is the same.
pub(super) fn name(magic: u32) -> Option<String> {
    let known = NAMES.iter().find(|(known, _)| *known == magic).map(|(_, name)| (*name).to_owned());
    (magic != 0).then(|| known.unwrap_or_else(|| format!("{magic:#x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_where_there_is_no_name() {
        assert_eq!((name(0x794c_7630).as_deref(), name(0x1234).as_deref(), name(0)), (Some("overlay"), Some("0x1234"), None));
        let mut numbers: Vec<u32> = NAMES.iter().map(|(magic, _)| *magic).collect();
        numbers.sort();
        numbers.dedup();
        assert_eq!(numbers.len(), NAMES.len());
    }
}
