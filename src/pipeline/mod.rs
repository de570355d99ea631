//! propose, plan, decide, approve, commit, deliver, observe, record.
