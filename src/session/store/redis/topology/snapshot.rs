//! An immutable snapshot of the primaries and of the assignment of slots to them.

use std::sync::Arc;

use crate::config::Host;

use super::Primary;

/// Number of slots of a Redis Cluster.
pub(super) const SLOTS: usize = 16_384;

/// The primaries at one time, and the slots they own.
#[derive(Debug, Default)]
pub struct TopologySnapshot {
    pub(super) epoch: u64,
    pub(super) primaries: Vec<Arc<Primary>>,
    pub(super) slots: Slots,
}

/// The assignment of slots to primaries.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum Slots {
    /// No cluster: the only primary, if there is one, owns every key.
    #[default]
    One,
    /// For each slot, the index of its owner; `None` for a slot without an agreed owner.
    Cluster(Box<[Option<u16>]>),
}

impl TopologySnapshot {
    /// Version of the layout; increases with every change.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// All primaries, including cluster nodes without slots.
    pub fn primaries(&self) -> &[Arc<Primary>] {
        &self.primaries
    }

    /// The primary that owns `key`, if there is one.
    pub fn owner(&self, key: &[u8]) -> Option<&Arc<Primary>> {
        self.primaries.get(self.owner_index(|| key)?)
    }

    /// The index of the primary that owns a key. `key` is called only for a cluster. Without a cluster the
    /// index is 0, even if there is no primary.
    pub(in super::super) fn owner_index<'a>(&self, key: impl FnOnce() -> &'a [u8]) -> Option<usize> {
        match &self.slots {
            Slots::One => Some(0),
            Slots::Cluster(owners) => {
                owners.get(usize::from(slot(key()))).copied().flatten().map(usize::from)
            }
        }
    }

    /// A random hash tag whose slot belongs to the primary at `index`; `None` if that owns no slot. Takes
    /// several attempts, in inverse proportion to the share of slots.
    pub(in super::super) fn tag_of(&self, index: usize) -> Option<String> {
        let mut tags = std::iter::repeat_with(|| format!("{:x}", fastrand::u32(..)));
        let is_owner = |tag: &String| self.owner_index(|| tag.as_bytes()) == Some(index);
        self.owns_keys(index).then(|| tags.find(is_owner)).flatten()
    }

    /// Whether the primary at `index` owns any slot.
    pub(in super::super) fn owns_keys(&self, index: usize) -> bool {
        match &self.slots {
            Slots::One => true,
            Slots::Cluster(owners) => owners.iter().flatten().any(|owner| usize::from(*owner) == index),
        }
    }

    /// Whether servers may reply with redirections.
    pub(in super::super) fn is_cluster(&self) -> bool {
        matches!(self.slots, Slots::Cluster(_))
    }

    pub(in super::super) fn index_of(&self, host: &Host) -> Option<usize> {
        self.primaries.iter().position(|primary| primary.host() == host)
    }

    pub(in super::super) fn holds(&self, primary: &Primary) -> bool {
        self.primaries.iter().any(|other| std::ptr::eq(Arc::as_ptr(other), primary))
    }

    pub(super) fn find(&self, host: &Host) -> Option<Arc<Primary>> {
        self.primaries.iter().find(|primary| primary.host() == host).cloned()
    }
}

/// The slot of a key: CRC16 (XMODEM) of its hash tag, or of the whole key if it has none. The hash tag is the
/// text between the first `{` and the next `}`, if that is not empty (Redis Cluster Specification, "Hash
/// tags").
fn slot(key: &[u8]) -> u16 {
    let crc = tag(key).unwrap_or(key).iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    });
    crc % SLOTS as u16
}

fn tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|byte| *byte == b'{')?;
    let rest = key.get(open + 1..)?;
    let close = rest.iter().position(|byte| *byte == b'}')?;
    rest.get(..close).filter(|tag| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_of_the_primary_that_owns_its_slot() {
        let mut owners = vec![Some(0); SLOTS];
        owners[77] = Some(1);
        let layout = TopologySnapshot { slots: Slots::Cluster(owners.into()), ..TopologySnapshot::default() };
        let tag = layout.tag_of(1).unwrap();
        assert_eq!(slot(tag.as_bytes()), 77);
        assert_eq!(slot(format!("vestibule:heartbeat:{{{tag}}}:x").as_bytes()), 77);
        assert_eq!(layout.tag_of(2), None);
        assert!(layout.tag_of(0).is_some() && TopologySnapshot::default().tag_of(0).is_some());
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        for (key, expected) in [
            ("123456789", 0x31C3),
            ("", 0),
            ("foo", 12_182),
            ("{foo}", 12_182),
            ("a{foo}b{bar}", 12_182),
            ("session:{}x", slot(b"session:{}x")),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_ne!(slot(b"foo{}{bar}"), slot(b"bar"));
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_ne!(slot(b"foo{bar"), slot(b"bar"));
    }
}
