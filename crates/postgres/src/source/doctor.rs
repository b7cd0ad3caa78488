//! What stands in the way of a backup, and how to mend it.

use lifeboat_core::Inspection;

use super::ClusterOptions;
use crate::error::Result;

pub(super) async fn inspect(_options: &ClusterOptions) -> Result<Inspection> {
    Ok(Inspection::default())
}
