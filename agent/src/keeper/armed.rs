//! The armed set: which groups may have processes under a host epoch. A table of fixed capacity.
//!
//! Invariant: names are those of `GroupName`; a name stands in the table once; the table never grows past
//! [`GROUPS_MAX`]. A reserved table is filled again and again without allocating.
//!
//! Not here: when a group may begin to start (`core`: only after the sequence was echoed).

use super::layout::{Put, Short, Take};
use quorum::id::{Epoch, GroupName, NAME_BYTES_MAX};

/// How many groups one host can have armed. A host that runs more guests than this is not one we have met; the table
/// stays small enough to be copied at every look.
pub const GROUPS_MAX: usize = 512;

/// Bytes of one entry in the shared record and page.
const ENTRY_BYTES: usize = 1 + NAME_BYTES_MAX + 8 + 8;

/// Bytes of a full table.
pub(super) const TABLE_BYTES_MAX: usize = 2 + GROUPS_MAX * ENTRY_BYTES;

/// Why a table was refused. Nothing was changed, or, after [`ArmedSet::take`], the table is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// There are more than [`GROUPS_MAX`] groups.
    #[error("arm more than {GROUPS_MAX} groups")]
    Full,
    /// The bytes are no table: a length, name or flag is not valid.
    #[error("read the armed set: it is malformed")]
    Malformed,
}

/// One group of the armed set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ArmedGroup {
    name: [u8; NAME_BYTES_MAX],
    name_bytes: u8,
    /// The ticket's epoch under which it runs.
    pub epoch: Epoch,
    /// Whether it lives in its pinned cgroup, exempt from freeze and kill.
    pub pinned: bool,
}

impl ArmedGroup {
    /// An entry for `group`.
    pub fn new(group: &GroupName, epoch: Epoch, pinned: bool) -> Self {
        let text = group.as_str().as_bytes();
        let mut name = [0; NAME_BYTES_MAX];
        name[..text.len()].copy_from_slice(text);
        Self { name, name_bytes: text.len() as u8, epoch, pinned }
    }

    /// The group's name.
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.name[..usize::from(self.name_bytes)]).unwrap_or_default()
    }

    fn put(&self, put: &mut Put<'_>) -> Result<(), Short> {
        put.u8(self.name_bytes)?;
        put.bytes(&self.name)?;
        put.u64(self.epoch.0)?;
        put.u64(u64::from(self.pinned))
    }

    fn take(take: &mut Take<'_>) -> Result<Self, TableError> {
        let malformed = |Short| TableError::Malformed;
        let name_bytes = take.u8().map_err(malformed)?;
        let name = take.array().map_err(malformed)?;
        let epoch = Epoch(take.u64().map_err(malformed)?);
        let pinned = match take.u64().map_err(malformed)? {
            0 => false,
            1 => true,
            _ => return Err(TableError::Malformed),
        };
        let group = Self { name, name_bytes, epoch, pinned };
        if group.is_well_named() { Ok(group) } else { Err(TableError::Malformed) }
    }

    /// The rule of `quorum::id` for names, checked again here because a name becomes part of a path.
    fn is_well_named(&self) -> bool {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let Some((text, padding)) = self.name.split_at_checked(usize::from(self.name_bytes)) else { return false };
        let Some(&first) = text.first() else { return false };
        plain(first)
            && text.iter().all(|&b| plain(b) || matches!(b, b'-' | b'_' | b'.'))
            && padding.iter().all(|&b| b == 0)
    }
}

impl std::fmt::Debug for ArmedGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}{}", self.name(), self.epoch, if self.pinned { " pinned" } else { "" })
    }
}

/// The groups that may have processes, sorted as they were pushed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArmedSet {
    groups: Vec<ArmedGroup>,
}

impl ArmedSet {
    /// An empty table that never allocates again.
    pub fn reserved() -> Self {
        Self { groups: Vec::with_capacity(GROUPS_MAX) }
    }

    /// Adds `group`, in the place of an entry of the same name.
    ///
    /// # Errors
    /// [`TableError::Full`] at the [`GROUPS_MAX`]th other name.
    pub fn push(&mut self, group: ArmedGroup) -> Result<(), TableError> {
        if let Some(same) = self.groups.iter_mut().find(|other| other.name() == group.name()) {
            *same = group;
            return Ok(());
        }
        if self.groups.len() == GROUPS_MAX {
            return Err(TableError::Full);
        }
        self.groups.push(group);
        Ok(())
    }

    /// Takes every group out.
    pub fn clear(&mut self) {
        self.groups.clear();
    }

    /// The groups.
    pub fn iter(&self) -> std::slice::Iter<'_, ArmedGroup> {
        self.groups.iter()
    }

    /// The group of this name.
    pub fn find(&self, name: &str) -> Option<&ArmedGroup> {
        self.groups.iter().find(|group| group.name() == name)
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Becomes equal to `other`; allocates nothing if this table is reserved.
    pub fn copy_from(&mut self, other: &Self) {
        self.groups.clear();
        self.groups.extend_from_slice(&other.groups);
    }

    /// Keeps only the groups for which `keep` says so.
    pub fn retain(&mut self, keep: impl FnMut(&ArmedGroup) -> bool) {
        self.groups.retain(keep);
    }

    pub(super) fn put(&self, put: &mut Put<'_>) -> Result<(), Short> {
        put.u16(u16::try_from(self.groups.len()).map_err(|_| Short)?)?;
        self.groups.iter().try_for_each(|group| group.put(put))
    }

    /// Fills this table from bytes, without allocating if it is reserved.
    pub(super) fn take(&mut self, take: &mut Take<'_>) -> Result<(), TableError> {
        self.groups.clear();
        let count = usize::from(take.u16().map_err(|Short| TableError::Malformed)?);
        if count > GROUPS_MAX {
            return Err(TableError::Full);
        }
        for _ in 0..count {
            let group = ArmedGroup::take(take).inspect_err(|_| self.groups.clear())?;
            self.groups.push(group);
        }
        Ok(())
    }
}

impl<'a> IntoIterator for &'a ArmedSet {
    type Item = &'a ArmedGroup;
    type IntoIter = std::slice::Iter<'a, ArmedGroup>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str) -> ArmedGroup {
        ArmedGroup::new(&GroupName::new(name).expect("name"), Epoch(7), false)
    }

    #[test]
    fn a_full_table_refuses_the_next_group_and_takes_a_known_one() {
        let mut set = ArmedSet::reserved();
        for n in 0..GROUPS_MAX {
            set.push(group(&format!("g{n}"))).expect("room");
        }
        assert_eq!(set.push(group("one-more")), Err(TableError::Full));
        set.push(ArmedGroup { pinned: true, ..group("g3") }).expect("known");
        assert!(set.find("g3").expect("found").pinned);
        assert_eq!(set.len(), GROUPS_MAX);
    }

    #[test]
    fn a_full_table_survives_its_bytes() {
        let mut set = ArmedSet::reserved();
        (0..GROUPS_MAX).for_each(|n| set.push(group(&format!("g{n}"))).expect("room"));
        let mut bytes = vec![0; TABLE_BYTES_MAX];
        set.put(&mut Put::new(&mut bytes)).expect("fits");
        let mut back = ArmedSet::default();
        back.take(&mut Take::new(&bytes)).expect("whole");
        assert_eq!(back, set);
    }

    #[test]
    fn a_name_that_would_leave_its_directory_is_malformed() {
        for bad in ["", ".", "..", "a/b", "A"] {
            let mut entry = group("x");
            entry.name = [0; NAME_BYTES_MAX];
            entry.name[..bad.len()].copy_from_slice(bad.as_bytes());
            entry.name_bytes = bad.len() as u8;
            let mut bytes = [0; ENTRY_BYTES];
            entry.put(&mut Put::new(&mut bytes)).expect("fits");
            assert_eq!(ArmedGroup::take(&mut Take::new(&bytes)), Err(TableError::Malformed), "{bad:?}");
        }
    }
}
