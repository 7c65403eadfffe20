//! The rights of FILE: owner, group, mode, ACL and extended attributes.
//!
//! This file owns their way from FILE to the complete FILE.part, as far as the file system and the user's own
//! rights allow. Otherwise the new FILE grants less than the old one, never more. This file touches no
//! content.

use std::ffi::{CStr, CString};
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use super::target::{Kind, Target};
use crate::file::{self, PRIVATE, directory_of};
use crate::sys;

/// The attributes that hold a file's ACL, and the ACL that a directory gives to new files (acl(5)).
const ACL: &CStr = c"system.posix_acl_access";
const DEFAULT_ACL: &CStr = c"system.posix_acl_default";
/// Bytes of an ACL's version, and of each entry after it: tag, permissions, id, little-endian.
const VERSION: usize = 4;
const ENTRY: usize = 8;
/// The start of the names of all ACLs, also those of NFS and others.
const ACLS: &[u8] = b"system.";
/// Gives a program some of root's rights (capabilities(7)).
const CAPABILITY: &CStr = c"security.capability";
/// Hashes and signatures of the old content, and the notes of overlayfs.
const OF_THE_CONTENT: [&[u8]; 3] = [b"security.ima", b"security.evm", b"trusted.overlay."];

/// The bits that chmod sets; of these, set-user-id and set-group-id; and the owner's.
const MODE: u32 = 0o7777;
const SET_ID: u32 = 0o6000;
const OWNER: u32 = 0o700;

const ROOT: u32 = 0;
/// The bits that let other users than the owner write.
const OTHERS_WRITE: u32 = 0o022;

/// What to do with the FILE.part of an earlier run.
pub enum Leftover {
    /// Go on in it: only this user can read and write it.
    Private,
    /// Take blocks from it, and make a new one: other users may have it open.
    Open,
    Refused(&'static str),
}

/// Judges the FILE.part of an earlier run. A kill just before the rename leaves it with the rights of FILE, or
/// of a new file. If more users than that may write it, it is refused.
pub fn look_at(part: &Metadata, part_path: &Path, target: &Target) -> Leftover {
    if part.is_symlink() {
        return Leftover::Refused("it is a symbolic link");
    }
    if !part.is_file() {
        return Leftover::Refused("it is not a regular file");
    }
    if part.nlink() != 1 {
        return Leftover::Refused("it has another name, a hard link");
    }
    let (uid, mode) = match &target.found {
        Some(file) => (file.uid(), file.mode()),
        None => (sys::user(), target.new_mode),
    };
    let is_own = part.uid() == sys::user();
    // Some file systems give all files the same owner or mode: FAT by its mount options, NFS for root.
    let is_like_new = || {
        let new = file::unnamed(directory_of(part_path));
        let new = new.and_then(|(file, _)| file.metadata());
        new.is_ok_and(|new| (new.uid(), new.mode()) == (part.uid(), part.mode()))
    };
    let is_private = is_own && part.mode() & MODE & !PRIVATE == 0;
    if !has_acl(part_path) && (is_private || is_like_new()) {
        return Leftover::Private;
    }
    // Only root gives files away. A kill may come just after that.
    let is_given_away = sys::user() == ROOT && part.uid() == uid;
    if !is_own && !is_given_away {
        Leftover::Refused("it belongs to another user")
    } else if part.mode() & OTHERS_WRITE & !mode != 0 {
        Leftover::Refused("other users may write it")
    } else {
        Leftover::Open
    }
}

/// The rights of a FILE.
struct Rights {
    /// With owner, group and mode.
    metadata: Metadata,
    acls: Vec<Attribute>,
    /// Whether this user may read each of them.
    has_all_acls: bool,
    others: Vec<Attribute>,
}

type Attribute = (CString, Vec<u8>);

/// # Errors
/// When FILE has rights that cannot be read.
pub fn check_readable(target: &Target) -> io::Result<()> {
    Rights::of(target).map(drop)
}

/// Gives the rights of FILE, the `target`, to `part`, named `part_path`, which is to replace it. The directory's
/// default ACL narrows the mode of a new FILE. Returns whether `part` grants less than FILE does.
///
/// # Errors
/// When the rights of FILE cannot be read, or `part` would grant more.
pub fn pass_on(target: &Target, part: &File, part_path: &Path) -> io::Result<bool> {
    let new_mode = target.new_mode;
    let Some(rights) = Rights::of(target)? else {
        match sys::attribute(directory_of(part_path), DEFAULT_ACL) {
            Ok(acl) => drop(sys::set_attribute(part, ACL, &inherited(acl, new_mode))),
            // A file system without modes leaves `part` as it is.
            Err(_) => drop(set_mode(part, new_mode)),
        }
        return Ok(false);
    };
    // The name, by which the rights were read, may be another file's meanwhile.
    if !target.is_as_found(fs::symlink_metadata(&target.path)) {
        let cause = "it was replaced meanwhile; run the same command again";
        return Err(io::Error::other(cause));
    }
    rights.give(part, part_path)
}

impl Rights {
    /// The present rights of a regular FILE, else none.
    ///
    /// # Errors
    /// When the disk fails. If the file system refuses to tell a right, FILE.part does not get it.
    fn of(target: &Target) -> io::Result<Option<Self>> {
        if target.kind != Kind::Regular {
            return Ok(None);
        }
        let path = &target.path;
        let metadata = fs::symlink_metadata(path)?;
        let (mut acls, mut others, mut has_all_acls) = (Vec::new(), Vec::new(), true);
        let mut names = match sys::attribute_names(path) {
            Err(e) if !is_refusal(&e) => return Err(e),
            names => names.unwrap_or_default(),
        };
        let listed = names.len();
        // Some file systems do not list the ACL.
        if !names.iter().any(|name| **name == *ACL) {
            names.push(ACL.to_owned());
        }
        for (number, name) in names.into_iter().enumerate() {
            let is_acl = name.as_bytes().starts_with(ACLS);
            let is_of_the_content = |start: &&[u8]| name.as_bytes().starts_with(start);
            if OF_THE_CONTENT.iter().any(is_of_the_content) {
                continue;
            }
            match sys::attribute(path, &name) {
                Ok(value) if !is_acl => others.push((name, value)),
                Ok(acl) if *name == *ACL && is_mode(&acl) => {}
                Ok(acl) => acls.push((name, acl)),
                Err(e) if !is_acl || sys::is_no_attribute(&e, number < listed) => {}
                Err(e) if is_refusal(&e) => has_all_acls = false,
                Err(e) => return Err(e),
            }
        }
        Ok(Some(Rights {
            metadata,
            acls,
            has_all_acls,
            others,
        }))
    }

    /// The order matters: a change of the owner clears bits of the mode, and capabilities; attributes can
    /// be set while the mode allows writing; the mode opens the file to others.
    fn give(&self, part: &File, part_path: &Path) -> io::Result<bool> {
        let (old, now) = (&self.metadata, part.metadata()?);
        let uid = (now.uid() != old.uid()).then_some(old.uid());
        let gid = (now.gid() != old.gid()).then_some(old.gid());
        // Only root gives files away, and an owner gives them to a group of his own.
        let is_given = uid.is_some() && fchown(part, uid, gid).is_ok();
        if gid.is_some() && !is_given {
            let _ = fchown(part, None, gid);
        }
        let now = part.metadata()?;
        let (same_owner, same_group) = (now.uid() == old.uid(), now.gid() == old.gid());
        for (name, value) in &self.others {
            if **name != *CAPABILITY || (same_owner && same_group) {
                let _ = sys::set_attribute(part, name, value);
            }
        }
        let old_mode = old.mode() & MODE;
        let mut mode = narrowed(old_mode, same_owner, same_group);
        // The entry for the owning group would apply to another group.
        let acls = if same_group { &self.acls[..] } else { &[] };
        let has_all_acls = self.has_all_acls && acls.len() == self.acls.len();
        if !(replace_acls(part, part_path, acls) && has_all_acls) {
            mode &= OWNER;
        }
        Ok(set_mode(part, mode)? != old_mode)
    }
}

/// The part of a mode that a file of the same or another owner and group may have. For another group, the
/// members of the old one are others now, and some of the others are its members: each gets the rights that
/// both had.
fn narrowed(mut mode: u32, same_owner: bool, same_group: bool) -> u32 {
    if !(same_owner && same_group) {
        mode &= !SET_ID;
    }
    if !same_group {
        let both = mode >> 3 & mode & 7;
        mode = mode & !0o77 | both << 3 | both;
    }
    mode
}

/// Gives `part` these ACLs in place of one that it may have from its directory. False if the file system
/// refuses one.
fn replace_acls(part: &File, part_path: &Path, acls: &[Attribute]) -> bool {
    if !acls.iter().any(|(name, _)| **name == *ACL) {
        sys::remove_attribute(part, ACL);
        if has_acl(part_path) {
            return false;
        }
    }
    let set = |(name, acl): &Attribute| sys::set_attribute(part, name, acl).is_ok();
    acls.iter().all(set)
}

/// Whether a file has an ACL that says more than its mode.
fn has_acl(path: &Path) -> bool {
    sys::attribute(path, ACL).is_ok_and(|acl| !is_mode(&acl))
}

/// Whether an ACL says no more than a mode: it has three entries, for the owner, the group and others.
/// Some file systems always show one.
fn is_mode(acl: &[u8]) -> bool {
    acl.len() <= VERSION + 3 * ENTRY
}

/// Removes the attributes that the FILE.part of an earlier run may have.
pub fn clear_attributes(part: &File, part_path: &Path) {
    for name in sys::attribute_names(part_path).unwrap_or_default() {
        sys::remove_attribute(part, &name);
    }
}

/// Sets the mode, unless the file has it, and returns the mode that the file has then. A file system may
/// refuse or ignore the call.
///
/// # Errors
/// When the file then grants more than `mode`, or the disk fails.
fn set_mode(part: &File, mode: u32) -> io::Result<u32> {
    let bits = || part.metadata().map(|there| there.mode() & MODE);
    if bits()? == mode {
        return Ok(mode);
    }
    let set = part.set_permissions(Permissions::from_mode(mode));
    let now = bits()?;
    let grants_more = now & !mode != 0;
    match set {
        Ok(()) if grants_more => Err(io::ErrorKind::Unsupported.into()),
        Err(e) if grants_more || !is_refusal(&e) => Err(e),
        _ => Ok(now),
    }
}

/// Whether this user or this file system may not make the call; any other error is the disk's.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{ArgumentListTooLong, PermissionDenied};
    matches!(error.kind(), PermissionDenied | ArgumentListTooLong) || sys::is_unsupported(error)
}

/// The ACL of a file created with `mode` in a directory with this default ACL (acl(5), "Object creation and
/// default ACLs").
fn inherited(mut acl: Vec<u8>, mode: u32) -> Vec<u8> {
    const USER_OBJ: u8 = 0x01;
    const GROUP_OBJ: u8 = 0x04;
    const MASK: u8 = 0x10;
    const OTHER: u8 = 0x20;
    let entries = acl.get_mut(VERSION..).unwrap_or_default();
    let has_mask = entries.chunks(ENTRY).any(|entry| entry[0] == MASK);
    for entry in entries.chunks_exact_mut(ENTRY) {
        let shift = match entry[0] {
            USER_OBJ => 6,
            MASK => 3,
            GROUP_OBJ if !has_mask => 3,
            OTHER => 0,
            _ => continue,
        };
        entry[2] &= (mode >> shift & 7) as u8;
    }
    acl
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_only_ever_narrowed() {
        for (mode, same_owner, same_group, narrow) in [
            (0o6777, true, true, 0o6777),
            (0o6777, false, true, 0o777),
            (0o6777, true, false, 0o777),
            (0o640, false, true, 0o640),
            (0o640, true, false, 0o600),
            (0o664, false, false, 0o644),
            (0o604, true, false, 0o600),
            (0o1755, false, false, 0o1755),
        ] {
            let got = narrowed(mode, same_owner, same_group);
            assert_eq!(got, narrow, "{mode:o} {same_owner} {same_group}: {got:o}");
        }
    }

    #[test]
    fn a_new_file_has_what_the_directory_and_the_mode_both_grant() {
        let acl = |entries: &[(u8, u8)]| {
            let entry = |&(tag, permissions)| [tag, 0, permissions, 0, 0, 0, 0, 0];
            let entries = entries.iter().flat_map(entry);
            [2, 0, 0, 0].into_iter().chain(entries).collect::<Vec<u8>>()
        };
        let masked = acl(&[(1, 7), (2, 6), (4, 5), (0x10, 7), (0x20, 5)]);
        let due = acl(&[(1, 6), (2, 6), (4, 5), (0x10, 4), (0x20, 4)]);
        assert_eq!(inherited(masked, 0o644), due);
        let plain = acl(&[(1, 7), (4, 7), (0x20, 0)]);
        assert_eq!(inherited(plain, 0o664), acl(&[(1, 6), (4, 6), (0x20, 0)]));
        assert_eq!(inherited(vec![2], 0o644), [2]);
    }
}
