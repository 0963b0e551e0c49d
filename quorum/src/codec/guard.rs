//! A deserializer around bincode's that trusts no length: what hostile bytes could do to it ends here.
//!
//! bincode's own limit bounds what is *claimed*, not what is set aside, and not zero-sized elements or recursion. So:
//! no sequence or map tells its length in advance (collections grow with what was really read); strings and bytes are
//! taken from the frame and then copied; all sequences and maps of a frame together have no more elements than the
//! frame has bytes; values nest at most [`DEPTH_MAX`] deep.
//!
//! Not here: the frame's limit and the check for trailing bytes (the parent module).

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

/// No type of ours nests deeper than about ten; a stack of 2 MiB bears some hundreds.
const DEPTH_MAX: u32 = 64;

/// What one frame may still cost.
pub(super) struct Budget {
    elements: Cell<usize>,
    depth: Cell<u32>,
}

impl Budget {
    /// The budget of a frame with this body: an element takes at least one byte.
    pub(super) fn of(body: &[u8]) -> Self {
        Self { elements: Cell::new(body.len()), depth: Cell::new(DEPTH_MAX) }
    }

    fn take_element<E: Error>(&self) -> Result<(), E> {
        let left = self.elements.get().checked_sub(1).ok_or_else(|| E::custom("more elements than bytes"))?;
        self.elements.set(left);
        Ok(())
    }

    fn nested<T, E: Error>(&self, inner: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let left = self.depth.get().checked_sub(1).ok_or_else(|| E::custom("nested too deep"))?;
        self.depth.set(left);
        let result = inner();
        self.depth.set(left + 1);
        result
    }
}

/// The seed that decodes a whole `T` within `budget`.
pub(super) fn root<'de, T: DeserializeOwned>(
    budget: &Budget,
) -> impl DeserializeSeed<'de, Value = T> + use<'_, 'de, T> {
    Guard { inner: PhantomData::<T>, budget }
}

/// Wraps a seed, deserializer, visitor or access.
struct Guard<'b, I> {
    inner: I,
    budget: &'b Budget,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Guard<'_, S> {
    type Value = S::Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Guard { inner: deserializer, budget: self.budget })
    }
}

macro_rules! forward {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(Guard { inner: visitor, budget: self.budget })
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Guard<'_, D> {
    type Error = D::Error;

    forward! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_bytes deserialize_option
        deserialize_unit deserialize_identifier deserialize_ignored_any
    }

    // Borrowed from the frame instead: bincode would first set aside as much as the prefix says.
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let Guard { inner, budget } = self;
        inner.deserialize_seq(Guard { inner: Counted(visitor), budget })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_map(Guard { inner: visitor, budget: self.budget })
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, Guard { inner: visitor, budget: self.budget })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_newtype_struct(name, Guard { inner: visitor, budget: self.budget })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple(len, Guard { inner: visitor, budget: self.budget })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple_struct(name, len, Guard { inner: visitor, budget: self.budget })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_struct(name, fields, Guard { inner: visitor, budget: self.budget })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_enum(name, variants, Guard { inner: visitor, budget: self.budget })
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// A visitor whose sequence has as many elements as the bytes say, not as the type says.
struct Counted<V>(V);

macro_rules! forward_visits {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<Self::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Guard<'_, Counted<V>> {
    type Value = V::Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.0.expecting(f)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let Guard { inner: Counted(visitor), budget } = self;
        budget.nested(|| visitor.visit_seq(Elements { access, budget, counted: true }))
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Guard<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    forward_visits! {
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128,
        visit_u8: u8, visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128, visit_f32: f32,
        visit_f64: f64, visit_char: char, visit_str: &str, visit_borrowed_str: &'de str, visit_string: String,
        visit_bytes: &[u8], visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>,
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let budget = self.budget;
        budget.nested(|| self.inner.visit_some(Guard { inner, budget }))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let budget = self.budget;
        budget.nested(|| self.inner.visit_newtype_struct(Guard { inner, budget }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let budget = self.budget;
        budget.nested(|| self.inner.visit_seq(Elements { access, budget, counted: false }))
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let budget = self.budget;
        budget.nested(|| self.inner.visit_map(Elements { access, budget, counted: true }))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let budget = self.budget;
        budget.nested(|| self.inner.visit_enum(Guard { inner, budget }))
    }
}

struct Elements<'b, A> {
    access: A,
    budget: &'b Budget,
    counted: bool,
}

// No `size_hint`: its default says nothing, and so nothing is set aside.
impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = A::Error;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, inner: T) -> Result<Option<T::Value>, A::Error> {
        let element = self.access.next_element_seed(Guard { inner, budget: self.budget })?;
        if self.counted && element.is_some() {
            self.budget.take_element()?;
        }
        Ok(element)
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Elements<'_, A> {
    type Error = A::Error;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, inner: K) -> Result<Option<K::Value>, A::Error> {
        let key = self.access.next_key_seed(Guard { inner, budget: self.budget })?;
        if key.is_some() {
            self.budget.take_element()?;
        }
        Ok(key)
    }
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, inner: T) -> Result<T::Value, A::Error> {
        self.access.next_value_seed(Guard { inner, budget: self.budget })
    }
}

impl<'b, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Guard<'b, A> {
    type Error = A::Error;
    type Variant = Guard<'b, A::Variant>;
    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self::Variant), A::Error> {
        let (value, inner) = self.inner.variant_seed(seed)?;
        Ok((value, Guard { inner, budget: self.budget }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Guard<'_, A> {
    type Error = A::Error;
    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, inner: T) -> Result<T::Value, A::Error> {
        self.inner.newtype_variant_seed(Guard { inner, budget: self.budget })
    }
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(len, Guard { inner: visitor, budget: self.budget })
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, Guard { inner: visitor, budget: self.budget })
    }
}
