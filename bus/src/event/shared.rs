//! minicbor has no encoding of `Arc`: that of what it holds. For `#[cbor(with = "shared", has_nil)]`.

use std::sync::Arc;

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use minicbor::{Decode, Encode};

pub(super) fn encode<T: Encode<Ctx>, Ctx, W: Write>(
    value: &Option<Arc<T>>,
    encoder: &mut Encoder<W>,
    context: &mut Ctx,
) -> Result<(), EncodeError<W::Error>> {
    value.as_deref().encode(encoder, context)
}

pub(super) fn decode<'b, T: Decode<'b, Ctx>, Ctx>(decoder: &mut Decoder<'b>, context: &mut Ctx) -> Result<Option<Arc<T>>, DecodeError> {
    Ok(Option::<T>::decode(decoder, context)?.map(Arc::new))
}

pub(super) fn is_nil<T>(value: &Option<Arc<T>>) -> bool {
    value.is_none()
}

pub(super) fn nil<T>() -> Option<Option<Arc<T>>> {
    Some(None)
}

/// What events share and always have. For `#[cbor(with = "shared::whole")]`, here and wherever such a value is saved.
pub mod whole {
    use std::sync::Arc;

    use minicbor::decode::{Decoder, Error as DecodeError};
    use minicbor::encode::{Encoder, Error as EncodeError, Write};
    use minicbor::{Decode, Encode};

    /// Writes what it holds.
    ///
    /// # Errors
    /// Those of the writer and of what it holds.
    pub fn encode<T: Encode<Ctx>, Ctx, W: Write>(
        value: &Arc<T>,
        encoder: &mut Encoder<W>,
        context: &mut Ctx,
    ) -> Result<(), EncodeError<W::Error>> {
        T::encode(value, encoder, context)
    }

    /// Reads it into one of its own.
    ///
    /// # Errors
    /// As for what it holds.
    pub fn decode<'b, T: Decode<'b, Ctx>, Ctx>(decoder: &mut Decoder<'b>, context: &mut Ctx) -> Result<Arc<T>, DecodeError> {
        T::decode(decoder, context).map(Arc::new)
    }
}

/// Text that events share. For `#[cbor(with = "shared::text")]`.
pub(super) mod text {
    use std::sync::Arc;

    use minicbor::decode::{Decoder, Error as DecodeError};
    use minicbor::encode::{Encoder, Error as EncodeError, Write};

    pub(in super::super) fn encode<Ctx, W: Write>(
        value: &Arc<str>,
        encoder: &mut Encoder<W>,
        _: &mut Ctx,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.str(value)?.ok()
    }

    pub(in super::super) fn decode<Ctx>(decoder: &mut Decoder<'_>, _: &mut Ctx) -> Result<Arc<str>, DecodeError> {
        decoder.str().map(Arc::from)
    }
}
