//! How our operators travel: each one encodes itself, and the codec is a table look-up.
//!
//! ```text
//! operator ──Portable::encode──▶ body ──▶ "TDML" { version, name, body } ──▶ the other node
//!                                                    │ OPERATORS by name
//! operator ◀──Portable::decode────────────────────── ▼        what is not ours ⇄ the inner codec
//! ```
//! A new operator implements [`Portable`] and adds one line to [`OPERATORS`].

use datafusion::arrow::datatypes::Schema;
use datafusion::common::Result as DfResult;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, WindowUDF};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr_common::physical_expr::proto_decode::PhysicalExprDecodeCtx;
use datafusion::physical_expr_common::physical_expr::proto_encode::PhysicalExprEncodeCtx;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{
    DefaultPhysicalExtensionCodec, PhysicalExtensionCodec, PhysicalPlanDecodeContext,
    PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::{PhysicalExprNode, PhysicalPlanNode};
use prost::Message;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};

use crate::exec::{DeduplicateExec, IngestExec, KeyedAggregateExec, RelabelExec, SelectRowsExec, WriteExec};
use crate::guard::GuardExec;
use crate::{from_datafusion, to_datafusion};

/// All operators of ours that may travel.
pub const OPERATORS: &[Operator] = &[
    Operator::of::<DeduplicateExec>(),
    Operator::of::<GuardExec>(),
    Operator::of::<IngestExec>(),
    Operator::of::<KeyedAggregateExec>(),
    Operator::of::<RelabelExec>(),
    Operator::of::<SelectRowsExec>(),
    Operator::of::<WriteExec>(),
];

/// First bytes of everything that this codec wrote. As a protobuf tag they are invalid, so no message of an
/// inner codec begins with them.
const MAGIC: &[u8; 4] = b"TDML";

/// Grows whenever the encoding of any operator changes.
const VERSION: u32 = 1;

/// An operator that can be sent to another node.
pub trait Portable: ExecutionPlan + Sized {
    /// Unique among all operators, and kept for ever.
    const NAME: &'static str;

    /// Everything but the inputs.
    fn encode(&self, to: &Encoder<'_>) -> Result<Vec<u8>>;

    /// The reverse of [`Portable::encode`]; `inputs` are decoded already.
    fn decode(body: &[u8], inputs: &[Arc<dyn ExecutionPlan>], from: &Decoder<'_>) -> Result<Self>;
}

/// What an operator may use to encode itself.
pub struct Encoder<'a> {
    codec: &'a dyn PhysicalExtensionCodec,
    converter: &'a dyn PhysicalProtoConverterExtension,
}

impl Encoder<'_> {
    pub fn expr(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Vec<u8>> {
        let node = self.converter.physical_expr_to_proto(expr, self.codec).map_err(from_datafusion)?;
        Ok(node.encode_to_vec())
    }

    /// A plan that the operator holds besides its inputs, such as the template of an aggregate.
    pub fn plan(&self, plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<u8>> {
        let node = self.converter.execution_plan_to_proto(plan, self.codec).map_err(from_datafusion)?;
        Ok(node.encode_to_vec())
    }
}

/// What an operator may use to decode itself.
pub struct Decoder<'a> {
    context: &'a TaskContext,
    codec: &'a dyn PhysicalExtensionCodec,
    converter: &'a dyn PhysicalProtoConverterExtension,
}

impl Decoder<'_> {
    /// The session of the node that decodes: its functions, its services.
    pub fn context(&self) -> &TaskContext {
        self.context
    }

    /// `schema` is that of the rows on which the expression is evaluated.
    pub fn expr(&self, bytes: &[u8], schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
        let node = PhysicalExprNode::decode(bytes).map_err(unreadable)?;
        let context = PhysicalPlanDecodeContext::new(self.context, self.codec);
        self.converter.proto_to_physical_expr(&node, schema, &context).map_err(from_datafusion)
    }

    pub fn plan(&self, bytes: &[u8]) -> Result<Arc<dyn ExecutionPlan>> {
        let node = PhysicalPlanNode::decode(bytes).map_err(unreadable)?;
        let context = PhysicalPlanDecodeContext::new(self.context, self.codec);
        self.converter.proto_to_execution_plan(&node, &context).map_err(from_datafusion)
    }

    /// A body that was written with `serde_json`.
    pub fn json<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T> {
        serde_json::from_slice(body).map_err(unreadable)
    }
}

fn unreadable(error: impl std::fmt::Display) -> Error {
    Error::internal(format!("a plan from another node does not read: {error}"))
        .hint("scheduler and executors must be of the same build")
}

type Encode = fn(&Arc<dyn ExecutionPlan>, &Encoder<'_>) -> Option<Result<Vec<u8>>>;
type Decode = fn(&[u8], &[Arc<dyn ExecutionPlan>], &Decoder<'_>) -> Result<Arc<dyn ExecutionPlan>>;

/// One line of the table.
#[derive(Clone, Copy)]
pub struct Operator {
    name: &'static str,
    /// `None` when the plan is another operator.
    encode: Encode,
    decode: Decode,
}

impl Operator {
    pub const fn of<P: Portable>() -> Self {
        Self {
            name: P::NAME,
            encode: |plan, to| plan.downcast_ref::<P>().map(|operator| operator.encode(to)),
            decode: |body, inputs, from| Ok(Arc::new(P::decode(body, inputs, from)?)),
        }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Knows our operators, and leaves everything else to the codec of the engine.
#[derive(Clone, Debug)]
pub struct Codec {
    inner: Arc<dyn PhysicalExtensionCodec>,
    more: &'static [Operator],
}

impl Default for Codec {
    fn default() -> Self {
        Self::over(Arc::new(DefaultPhysicalExtensionCodec {}))
    }
}

impl Codec {
    /// `inner` takes what is not ours, such as an engine's own shuffle nodes.
    pub fn over(inner: Arc<dyn PhysicalExtensionCodec>) -> Self {
        Self { inner, more: &[] }
    }

    /// Knows these too, for tests that bring operators of their own.
    #[must_use]
    pub fn with_operators(mut self, more: &'static [Operator]) -> Self {
        self.more = more;
        self
    }

    fn operators(&self) -> impl Iterator<Item = &'static Operator> {
        OPERATORS.iter().chain(self.more)
    }
}

#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(bytes = "vec", tag = "3")]
    body: Vec<u8>,
}

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Some(message) = buf.strip_prefix(MAGIC) else {
            return self.inner.try_decode(buf, inputs, context, converter);
        };
        let envelope = Envelope::decode(message).map_err(|error| to_datafusion(unreadable(error)))?;
        if envelope.version != VERSION {
            let words = format!("operator format {}, this node reads {VERSION}", envelope.version);
            return Err(to_datafusion(unreadable(words)));
        }
        let Some(operator) = self.operators().find(|operator| operator.name == envelope.name) else {
            return Err(to_datafusion(unreadable(format!("unknown operator `{}`", envelope.name))));
        };
        let decoder = Decoder { context, codec: self, converter };
        (operator.decode)(&envelope.body, inputs, &decoder)
            .map_err(|error| to_datafusion(error.context(format!("decoding {}", envelope.name))))
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> DfResult<()> {
        let encoder = Encoder { codec: self, converter };
        let ours = self.operators().find_map(|operator| {
            let body = (operator.encode)(&node, &encoder)?;
            Some((operator.name, body))
        });
        let Some((name, body)) = ours else { return self.inner.try_encode(node, buf, converter) };
        let body = body.map_err(|error| to_datafusion(error.context(format!("encoding {name}"))))?;
        buf.extend_from_slice(MAGIC);
        let envelope = Envelope { version: VERSION, name: name.to_owned(), body };
        envelope.encode(buf).map_err(|error| to_datafusion(Error::new(Code::Internal, error.to_string())))
    }

    fn try_decode_udf(&self, name: &str, buf: &[u8]) -> DfResult<Arc<ScalarUDF>> {
        self.inner.try_decode_udf(name, buf)
    }

    fn try_encode_udf(&self, node: &ScalarUDF, buf: &mut Vec<u8>) -> DfResult<()> {
        self.inner.try_encode_udf(node, buf)
    }

    fn try_decode_higher_order_function(&self, name: &str, buf: &[u8]) -> DfResult<Arc<HigherOrderUDF>> {
        self.inner.try_decode_higher_order_function(name, buf)
    }

    fn try_encode_higher_order_function(&self, node: &HigherOrderUDF, buf: &mut Vec<u8>) -> DfResult<()> {
        self.inner.try_encode_higher_order_function(node, buf)
    }

    fn try_decode_expr(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn PhysicalExpr>],
        context: &PhysicalExprDecodeCtx<'_>,
    ) -> DfResult<Arc<dyn PhysicalExpr>> {
        self.inner.try_decode_expr(buf, inputs, context)
    }

    fn try_encode_expr(
        &self,
        node: &Arc<dyn PhysicalExpr>,
        buf: &mut Vec<u8>,
        context: &PhysicalExprEncodeCtx<'_>,
    ) -> DfResult<()> {
        self.inner.try_encode_expr(node, buf, context)
    }

    fn try_decode_udaf(&self, name: &str, buf: &[u8]) -> DfResult<Arc<AggregateUDF>> {
        self.inner.try_decode_udaf(name, buf)
    }

    fn try_encode_udaf(&self, node: &AggregateUDF, buf: &mut Vec<u8>) -> DfResult<()> {
        self.inner.try_encode_udaf(node, buf)
    }

    fn try_decode_udwf(&self, name: &str, buf: &[u8]) -> DfResult<Arc<WindowUDF>> {
        self.inner.try_decode_udwf(name, buf)
    }

    fn try_encode_udwf(&self, node: &WindowUDF, buf: &mut Vec<u8>) -> DfResult<()> {
        self.inner.try_encode_udwf(node, buf)
    }
}
