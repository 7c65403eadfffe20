//! Who may do what with FILE: from the FILE that is replaced to the one that replaces it.
//!
//! Owner, group, mode, ACL and extended attributes are read from FILE and given to the complete
//! FILE.part, as far as the file system and the user's own rights allow. Where they do not allow it,
//! the new FILE grants less than the old one, never more. This file touches no content.

use std::ffi::{CStr, CString};
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use super::target::{Kind, Target};
use crate::file::directory_of;
use crate::sys;

/// A file's ACL, and the one that a directory gives to new files in it (acl(5)), as attributes.
const ACL: &CStr = c"system.posix_acl_access";
const DEFAULT_ACL: &CStr = c"system.posix_acl_default";
/// Bytes of their version, and then of each entry: tag, permissions, id, little-endian.
const VERSION: usize = 4;
const ENTRY: usize = 8;
/// All ACLs, those of NFS and others too, have names that begin so.
const ACLS: &[u8] = b"system.";
/// Lets a program do what otherwise only root may (capabilities(7)).
const CAPABILITY: &CStr = c"security.capability";
/// Hashes and signatures of the content, which changes, and what overlayfs notes for itself.
const OF_THE_CONTENT: [&[u8]; 3] = [b"security.ima", b"security.evm", b"trusted.overlay."];

/// What chmod can set; of it, set-user-id and set-group-id; the owner's part.
const MODE: u32 = 0o7777;
const SET_ID: u32 = 0o6000;
const OWNER: u32 = 0o700;

/// The user who may do anything.
const ROOT: u32 = 0;
/// The mode of FILE.part while it is incomplete.
pub const PRIVATE: u32 = 0o600;
/// What a new file's mode is made of, less the bits that the user masks.
pub const ALL_READ_AND_WRITE: u32 = 0o666;
/// The bits by which users write that do not own the file.
const OTHERS_WRITE: u32 = 0o022;

/// What to do with a FILE.part that a run before this one left.
pub enum Leftover {
    /// Go on in it: only this user can read and write it.
    Private,
    /// Take blocks from it, and make a new one: others may have it open.
    Open,
    Refused(&'static str),
}

/// Looks at such a FILE.part. One that had been given the rights of FILE, or those of a new one, was
/// killed when it was complete. One that more users can write is refused.
pub fn look_at(part: &Metadata, part_path: &Path, target: &Target, new_mode: u32) -> Leftover {
    if part.is_symlink() {
        return Leftover::Refused("it is a symbolic link");
    }
    if !part.is_file() {
        return Leftover::Refused("it is not a regular file");
    }
    if part.nlink() != 1 {
        return Leftover::Refused("it has another name, a hard link");
    }
    let (uid, mode) = match &target.kind {
        Kind::Regular(file) => (file.uid(), file.mode()),
        _ => (sys::user(), new_mode),
    };
    let is_own = part.uid() == sys::user();
    let has_acl = || sys::attribute(part_path, ACL).is_ok_and(|acl| !is_mode(&acl));
    if is_own && part.mode() & MODE & !PRIVATE == 0 && !has_acl() {
        return Leftover::Private;
    }
    // Some file systems have users or modes of their own for all files: FAT as it is mounted, NFS
    // for root.
    let new = new_file(directory_of(part_path));
    if new.is_ok_and(|new| (new.uid(), new.mode()) == (part.uid(), part.mode())) && !has_acl() {
        return Leftover::Private;
    }
    // Only root gives files away, and may have been killed then.
    let is_given_away = sys::user() == ROOT && part.uid() == uid;
    if !is_own && !is_given_away {
        Leftover::Refused("it belongs to another user")
    } else if part.mode() & OTHERS_WRITE & !mode != 0 {
        Leftover::Refused("other users may write it")
    } else {
        Leftover::Open
    }
}

/// What a private file of this user looks like in `directory`.
fn new_file(directory: &Path) -> io::Result<Metadata> {
    let path = directory.join(format!(".psync-{:016x}", sys::random()));
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(PRIVATE)
        .open(&path)?;
    fs::remove_file(&path)?;
    file.metadata()
}

/// The rights of a FILE.
struct Rights {
    uid: u32,
    gid: u32,
    mode: u32,
    acls: Vec<Attribute>,
    /// Whether each could be read.
    has_all_acls: bool,
    others: Vec<Attribute>,
}

type Attribute = (CString, Vec<u8>);

/// Looks at the rights of FILE, if it is there, before the work.
///
/// # Errors
/// When they cannot be read.
pub fn check_readable(target: &Target) -> io::Result<()> {
    match target.kind {
        Kind::Regular(_) => Rights::of(&target.path).map(drop),
        _ => Ok(()),
    }
}

/// Gives the rights of FILE, the `target`, to `part`, which is named `part_path` and is to replace it. A
/// new FILE gets `new_mode` and what the directory's default ACL leaves of it. Tells whether `part`
/// grants less than FILE does.
///
/// # Errors
/// When the rights of FILE cannot be read, or `part` would grant more.
pub fn pass_on(target: &Target, part: &File, part_path: &Path, new_mode: u32) -> io::Result<bool> {
    if let Kind::Regular(_) = target.kind {
        let rights = Rights::of(&target.path)?;
        // By its name, which may be another file's meanwhile.
        if !target.is_as_found(fs::symlink_metadata(&target.path)) {
            return Err(io::Error::other(
                "it was replaced meanwhile; run the same command again",
            ));
        }
        return rights.give(part, part_path);
    }
    give_new(part, part_path, new_mode);
    Ok(false)
}

impl Rights {
    /// Those of the file `path` at this moment.
    ///
    /// # Errors
    /// When the disk fails. What the file system refuses to tell is no error, and nothing is granted
    /// by it.
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        let (mut acls, mut others, mut has_all_acls) = (Vec::new(), Vec::new(), true);
        let mut names = match sys::attribute_names(path) {
            Err(e) if !is_refusal(&e) => return Err(e),
            names => names.unwrap_or_default(),
        };
        let listed = names.len();
        // Some file systems do not list it.
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
        Ok(Rights {
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: metadata.mode() & MODE,
            acls,
            has_all_acls,
            others,
        })
    }

    /// In this order: a change of the owner clears bits of the mode, and capabilities; attributes can
    /// be set while the mode allows writing; the mode comes last, and opens the file to others.
    fn give(&self, part: &File, part_path: &Path) -> io::Result<bool> {
        self.give_owner(part)?;
        let now = part.metadata()?;
        let (same_owner, same_group) = (now.uid() == self.uid, now.gid() == self.gid);
        for (name, value) in &self.others {
            if **name != *CAPABILITY || (same_owner && same_group) {
                let _ = sys::set_attribute(part, name, value);
            }
        }
        let mut mode = narrowed(self.mode, same_owner, same_group);
        // The entry for the group would be about another group.
        let acls = if same_group { &self.acls[..] } else { &[] };
        let has_all_acls = self.has_all_acls && acls.len() == self.acls.len();
        if !(replace_acls(part, part_path, acls) && has_all_acls) {
            mode &= OWNER;
        }
        Ok(set_mode(part, mode)? != self.mode)
    }

    /// Only root gives files away, and an owner gives them to a group of his own.
    fn give_owner(&self, part: &File) -> io::Result<()> {
        let now = part.metadata()?;
        let uid = (now.uid() != self.uid).then_some(self.uid);
        let gid = (now.gid() != self.gid).then_some(self.gid);
        if uid.is_some() && fchown(part, uid, gid).is_ok() {
            return Ok(());
        }
        if gid.is_some() {
            let _ = fchown(part, None, gid);
        }
        Ok(())
    }
}

/// A mode for a file that has, or has not, the owner and the group that the mode was made for. Without
/// the group, its members are others now, and others are its members.
fn narrowed(mode: u32, same_owner: bool, same_group: bool) -> u32 {
    let mut mode = mode;
    if !(same_owner && same_group) {
        mode &= !SET_ID;
    }
    if !same_group {
        let both = mode >> 3 & mode & 7;
        mode = mode & !0o77 | both << 3 | both;
    }
    mode
}

/// Gives `part` these ACLs and takes away the one that it may have from its directory. False where
/// that is refused.
fn replace_acls(part: &File, part_path: &Path, acls: &[Attribute]) -> bool {
    let is_left = || {
        sys::remove_attribute(part, ACL);
        sys::attribute(part_path, ACL).is_ok_and(|acl| !is_mode(&acl))
    };
    if !acls.iter().any(|(name, _)| **name == *ACL) && is_left() {
        return false;
    }
    let set = |(name, acl): &Attribute| sys::set_attribute(part, name, acl).is_ok();
    acls.iter().all(set)
}

/// Whether an ACL says no more than a mode: it has three entries, for the owner, the group and others.
/// Some file systems always show one.
fn is_mode(acl: &[u8]) -> bool {
    acl.len() <= VERSION + 3 * ENTRY
}

/// Takes the attributes away that a FILE.part from a run before this one may have.
pub fn clear_attributes(part: &File, part_path: &Path) {
    for name in sys::attribute_names(part_path).unwrap_or_default() {
        sys::remove_attribute(part, &name);
    }
}

/// Sets the mode where it is another one, and returns what it is then. Some file systems refuse that,
/// or ignore it: nothing to fail for where no right is left that is not in `mode`. A disk that fails
/// is.
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

/// Whether a call is not for this user or this file system, and all else is well.
fn is_refusal(error: &io::Error) -> bool {
    let kinds = [
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::ArgumentListTooLong,
    ];
    kinds.contains(&error.kind()) || sys::is_unsupported(error)
}

/// A file system without modes leaves the file as it is.
fn give_new(part: &File, part_path: &Path, mode: u32) {
    match sys::attribute(directory_of(part_path), DEFAULT_ACL) {
        Ok(acl) => drop(sys::set_attribute(part, ACL, &inherited(acl, mode))),
        Err(_) => drop(set_mode(part, mode)),
    }
}

/// The ACL of a file that is created with `mode` in a directory with this default ACL (acl(5), "Object
/// creation and default ACLs").
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
