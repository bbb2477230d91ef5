-- Who owns a session's snapshot, which of two is newer, and what can be told of it unopened.
-- oldest server: 1

ALTER TABLE wm_sessions
    ADD COLUMN persona_id      text COLLATE "C" NOT NULL DEFAULT '',
    -- Grows with every take-over by another brain; saves of the former owner are dropped from then on.
    ADD COLUMN epoch           bigint NOT NULL DEFAULT 1,
    ADD COLUMN version         bigint NOT NULL DEFAULT 0,
    ADD COLUMN sequence        bigint NOT NULL DEFAULT 0,
    ADD COLUMN item_count      integer NOT NULL DEFAULT 0,
    ADD COLUMN omitted_items   integer NOT NULL DEFAULT 0,
    ADD COLUMN content_format  text COLLATE "C" NOT NULL DEFAULT '';
-- Snapshots come compressed; compressing them again is work for nothing.
ALTER TABLE wm_sessions ALTER COLUMN snapshot SET STORAGE EXTERNAL;
