//! The messages of Caffe's `caffe.proto`, as far as they carry weights.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct NetParameter {
    #[prost(message, repeated, tag = "2")]
    pub(super) layers: Vec<V1LayerParameter>,
    #[prost(message, repeated, tag = "100")]
    pub(super) layer: Vec<LayerParameter>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct V1LayerParameter {
    #[prost(string, tag = "4")]
    pub(super) name: String,
    #[prost(int32, tag = "5")]
    pub(super) kind: i32,
    #[prost(message, repeated, tag = "6")]
    pub(super) blobs: Vec<BlobProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LayerParameter {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) kind: String,
    #[prost(message, repeated, tag = "7")]
    pub(super) blobs: Vec<BlobProto>,
    #[prost(message, optional, tag = "117")]
    pub(super) inner_product_param: Option<InnerProductParameter>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct InnerProductParameter {
    #[prost(bool, tag = "6")]
    pub(super) transpose: bool,
}

// `diff`, the gradients of a snapshot, is left out: nobody needs it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct BlobProto {
    #[prost(int64, tag = "1")]
    pub(super) num: i64,
    #[prost(int64, tag = "2")]
    pub(super) channels: i64,
    #[prost(int64, tag = "3")]
    pub(super) height: i64,
    #[prost(int64, tag = "4")]
    pub(super) width: i64,
    #[prost(float, repeated, tag = "5")]
    pub(super) data: Vec<f32>,
    #[prost(message, optional, tag = "7")]
    pub(super) shape: Option<BlobShape>,
    #[prost(double, repeated, tag = "8")]
    pub(super) double_data: Vec<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BlobShape {
    #[prost(int64, repeated, tag = "1")]
    pub(super) dim: Vec<i64>,
}
