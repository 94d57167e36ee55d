//! `PAUSE | RESUME PIPELINE | LOAD name` and `STOP PIPELINE name WITH DRAIN`.

use crate::TableName;
use crate::dialect::Cursor;
use tidemill_core::Result;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    pub action: ControlAction,
    pub target: ControlTarget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlAction {
    /// After the running epoch or load run.
    Pause,
    Resume,
    /// Reads what is there, closes every window, then pauses. Only of pipelines.
    Drain,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlTarget {
    Pipeline(TableName),
    Load(String),
}

pub(super) fn parse(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<Control> {
    let action = match cursor.one_of(&["PAUSE", "RESUME", "STOP"])? {
        "PAUSE" => ControlAction::Pause,
        "RESUME" => ControlAction::Resume,
        _ => {
            cursor.expect(&["PIPELINE"])?;
            let target = ControlTarget::Pipeline(cursor.table_name(default_schema)?);
            if !cursor.take(&["WITH", "DRAIN"]) {
                let hint =
                    "STOP PIPELINE name WITH DRAIN closes all windows; PAUSE PIPELINE name keeps them open";
                return Err(cursor.expected("`WITH DRAIN`").hint(hint));
            }
            return Ok(Control { action: ControlAction::Drain, target });
        }
    };
    let target = match cursor.one_of(&["PIPELINE", "LOAD"])? {
        "PIPELINE" => ControlTarget::Pipeline(cursor.table_name(default_schema)?),
        _ => ControlTarget::Load(cursor.ident()?),
    };
    Ok(Control { action, target })
}
