//! Claims about envelopes, friendly and hostile.

use super::*;
use proptest::prelude::*;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

const LIMIT: usize = 4096;

/// One of each shape that our types have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Unit,
    Newtype(Option<Box<str>>),
    Tuple(u8, i64, bool, char),
    Struct { name: String, list: Vec<(u64, [u16; 2])>, map: BTreeMap<u32, BTreeSet<i8>>, blob: Blob, float: f64 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Nest(Option<Box<Nest>>);

fn shape() -> impl Strategy<Value = Shape> {
    let structure = (
        ".{0,20}",
        proptest::collection::vec(any::<(u64, [u16; 2])>(), 0..20),
        proptest::collection::btree_map(any::<u32>(), proptest::collection::btree_set(any::<i8>(), 0..5), 0..8),
        proptest::collection::vec(any::<u8>(), 0..200),
        -1e9..1e9,
    )
        .prop_map(|(name, list, map, blob, float)| Shape::Struct { name, list, map, blob: blob.into(), float });
    prop_oneof![
        Just(Shape::Unit),
        proptest::option::of(".{0,9}").prop_map(|text| Shape::Newtype(text.map(Into::into))),
        any::<(u8, i64, bool, char)>().prop_map(|(a, b, c, d)| Shape::Tuple(a, b, c, d)),
        structure,
    ]
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded_and_nothing_shorter_or_longer_is(value in shape(), version in 1..=255u8) {
        let bytes = encode(version, &value, LIMIT).unwrap();
        prop_assert_eq!(decode::<Shape>(version, &bytes, LIMIT).unwrap(), value);
        for cut in 0..bytes.len() {
            prop_assert!(decode::<Shape>(version, &bytes[..cut], LIMIT).is_err());
        }
        let mut longer = bytes;
        longer.push(0);
        prop_assert!(matches!(decode::<Shape>(version, &longer, LIMIT), Err(DecodeError::Trailing(1))));
    }

    #[test]
    fn random_bytes_never_panic_and_cost_no_more_than_they_hold(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode::<Shape>(1, &bytes, LIMIT);
        let _ = open::<Shape>(1, &bytes, LIMIT);
        let _ = decode::<Vec<Shape>>(1, &[&[1], bytes.as_slice()].concat(), LIMIT);
        let _ = decode::<Nest>(1, &[&[1], bytes.as_slice()].concat(), LIMIT);
    }

    #[test]
    fn a_stored_value_with_any_bit_flipped_is_refused(value in shape(), at in any::<prop::sample::Index>(), bit in 0..8u32) {
        let mut bytes = seal(1, &value, LIMIT).unwrap();
        prop_assert_eq!(open::<Shape>(1, &bytes, LIMIT).unwrap(), value);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let is_refused = matches!(open::<Shape>(1, &bytes, LIMIT), Err(DecodeError::Checksum { .. }));
        prop_assert!(is_refused);
    }
}

#[test]
fn another_version_is_refused_by_name() {
    let bytes = encode(2, &7u64, LIMIT).unwrap();
    assert_eq!(version_of(&bytes).unwrap(), 2);
    assert!(matches!(decode::<u64>(1, &bytes, LIMIT), Err(DecodeError::Version { found: 2, wanted: 1 })));
    assert!(matches!(decode::<u64>(0, &[0, 7], LIMIT), Err(DecodeError::Version { .. })));
    assert!(matches!(version_of(&[]), Err(DecodeError::TooShort(0))));
}

#[test]
fn a_frame_beyond_its_limit_is_refused_before_it_is_read_and_never_written() {
    assert!(matches!(encode(1, &Blob::from(vec![0; 100]), 50), Err(EncodeError::TooLong { limit: 50, .. })));
    assert!(matches!(decode::<Blob>(1, &[9; 51], 50), Err(DecodeError::TooLong { len: 51, limit: 50 })));
    assert!(matches!(open::<Blob>(1, &[9; 51], 50), Err(DecodeError::TooLong { .. })));
    let exact = seal(1, &Blob::from(vec![0; 44]), 50).unwrap();
    assert_eq!(exact.len(), 50);
    assert!(seal(1, &Blob::from(vec![0; 45]), 50).is_err());
}

/// Notes what the deserializer says in advance.
#[derive(Debug)]
struct Promise(Option<usize>);

impl<'de> Deserialize<'de> for Promise {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Note;
        impl<'de> serde::de::Visitor<'de> for Note {
            type Value = Promise;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a sequence of bytes")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut access: A) -> Result<Promise, A::Error> {
                let promise = access.size_hint();
                while access.next_element::<u8>()?.is_some() {}
                Ok(Promise(promise))
            }
        }
        deserializer.deserialize_seq(Note)
    }
}

#[test]
fn a_length_prefix_sets_no_memory_aside() {
    let honest = encode(1, &vec![7u8; 9], LIMIT).unwrap();
    assert_eq!(decode::<Promise>(1, &honest, LIMIT).unwrap().0, None);
    // bincode's standard configuration writes a u64 length as 253 and eight bytes. Believed once, it is an abort.
    let claim = [&[1, 253][..], &(1u64 << 40).to_le_bytes()].concat();
    assert!(decode::<Vec<[u64; 32]>>(1, &claim, LIMIT).is_err());
    assert!(decode::<String>(1, &claim, LIMIT).is_err());
    assert!(decode::<Blob>(1, &claim, LIMIT).is_err());
    assert!(decode::<Vec<u8>>(1, &claim, LIMIT).is_err());
}

#[test]
fn elements_without_size_are_bounded_by_the_frame() {
    let claim = [&[1, 253][..], &(200u64 << 20).to_le_bytes()].concat();
    let error = decode::<Vec<()>>(1, &claim, LIMIT).unwrap_err();
    assert!(format!("{error:?}").contains("more elements than bytes"), "{error:?}");
}

#[test]
fn nesting_ends_before_the_stack_does() {
    let mut deep = vec![1];
    deep.extend(std::iter::repeat_n(1, 1 << 20));
    let error = decode::<Nest>(1, &deep, 2 << 20).unwrap_err();
    assert!(format!("{error:?}").contains("nested too deep"), "{error:?}");
}

#[test]
fn a_blob_is_written_as_a_vector_of_bytes_is() {
    let plain: Vec<u8> = (0..=255).collect();
    assert_eq!(encode(1, &plain, LIMIT).unwrap(), encode(1, &Blob::from(plain.clone()), LIMIT).unwrap());
}
