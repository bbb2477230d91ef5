-- What links need beyond their first form: who made one, which brain set it last, and the way to fading ones.
-- oldest server: 1

ALTER TABLE links
    ADD COLUMN made_by text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN origin_at timestamptz,
    ADD COLUMN origin_brain text COLLATE "C" NOT NULL DEFAULT '';
COMMENT ON COLUMN links.made_by IS 'Empty for a caller, payload for a reference in a payload, use for co-recall and plans.';
COMMENT ON COLUMN links.strength IS 'As of updated_at; co_recalled links fade from there.';

-- Outgoing ones are found by the primary key.
CREATE INDEX links_co_recalled_in ON links (tenant, target_id, source_id) WHERE relation = 'co_recalled';
