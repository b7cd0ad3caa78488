//! Passing over values: how long each is shows only when it is walked through.

use std::io::Read;

use super::error::{RdbError, Result};
use super::input::Input;
use super::kind::Shape;

/// Passes over one value.
pub(super) fn skip<R: Read>(input: &mut Input<R>, shape: Shape) -> Result<()> {
    match shape {
        Shape::Blob => input.skip_string(),
        Shape::Strings(each) => {
            for _ in 0..input.count()? {
                for _ in 0..each {
                    input.skip_string()?;
                }
            }
            Ok(())
        }
        Shape::Scored => {
            for _ in 0..input.count()? {
                input.skip_string()?;
                // Not a number, and the two infinities, are written without digits.
                match input.byte()? {
                    253..=255 => {}
                    digits => input.skip(digits.into())?,
                }
            }
            Ok(())
        }
        Shape::WithBytes(bytes) => {
            for _ in 0..input.count()? {
                input.skip_string()?;
                input.skip(bytes)?;
            }
            Ok(())
        }
        Shape::PairsWithTime => {
            for _ in 0..input.count()? {
                input.skip_string()?;
                input.skip_string()?;
                input.skip(8)?;
            }
            Ok(())
        }
        Shape::TimedPairs => {
            input.skip(8)?;
            for _ in 0..input.count()? {
                input.count()?;
                input.skip_string()?;
                input.skip_string()?;
            }
            Ok(())
        }
        Shape::TimedBlob => {
            input.skip(8)?;
            input.skip_string()
        }
        Shape::Nodes => {
            for _ in 0..input.count()? {
                let offset = input.offset();
                match input.count()? {
                    // One large element, or a listpack of small ones.
                    1 | 2 => input.skip_string()?,
                    code => {
                        return Err(RdbError::Unknown {
                            what: "the container of list elements",
                            code,
                            offset,
                        });
                    }
                }
            }
            Ok(())
        }
        Shape::Stream(version) => stream(input, version),
        Shape::Module => {
            input.count()?;
            module_parts(input)
        }
    }
}

/// A position in a stream: milliseconds and a number.
fn stream_id<R: Read>(input: &mut Input<R>) -> Result<()> {
    input.count()?;
    input.count()?;
    Ok(())
}

fn stream<R: Read>(input: &mut Input<R>, version: u8) -> Result<()> {
    // Its entries: listpacks, each under the position of its first.
    for _ in 0..input.count()? {
        input.skip_string()?;
        input.skip_string()?;
    }
    // How many entries, and the last position.
    input.count()?;
    stream_id(input)?;
    if version >= 2 {
        // The first position, the highest that was deleted, and how many entries were ever added.
        stream_id(input)?;
        stream_id(input)?;
        input.count()?;
    }
    for _ in 0..input.count()? {
        group(input, version)?;
    }
    Ok(())
}

fn group<R: Read>(input: &mut Input<R>, version: u8) -> Result<()> {
    input.skip_string()?;
    stream_id(input)?;
    if version >= 2 {
        // How many entries it has read.
        input.count()?;
    }
    // What is delivered and not acknowledged: position, time, how often.
    for _ in 0..input.count()? {
        input.skip(16 + 8)?;
        input.count()?;
    }
    // Its consumers: name, when seen, when active, and the positions that each has in work.
    for _ in 0..input.count()? {
        input.skip_string()?;
        input.skip(if version >= 3 { 16 } else { 8 })?;
        for _ in 0..input.count()? {
            input.skip(16)?;
        }
    }
    Ok(())
}

/// What a module wrote, up to its end mark.
pub(super) fn module_parts<R: Read>(input: &mut Input<R>) -> Result<()> {
    loop {
        let offset = input.offset();
        match input.count()? {
            0 => return Ok(()),
            // A signed and an unsigned number, both written as lengths are.
            1 | 2 => {
                input.count()?;
            }
            3 => input.skip(4)?,
            4 => input.skip(8)?,
            5 => input.skip_string()?,
            code => return Err(RdbError::Unknown { what: "the module's part", code, offset }),
        }
    }
}
