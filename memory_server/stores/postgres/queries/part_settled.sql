-- Whether the index should hold a memory m, with the job j, in the version it has. A collection that is being filled to
-- take this one's place has a higher epoch, and what is in it is in this one as well.
(j.due_at IS NULL AND j.indexed_epoch >= {epoch} AND j.indexed_version = m.version AND j.version = m.version)
