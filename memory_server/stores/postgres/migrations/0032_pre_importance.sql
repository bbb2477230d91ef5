-- How the importances of a namespace are distributed, counted when a recall ranks by importance.
-- oldest server: 1

CREATE TABLE importance_counts (
    tenant      text COLLATE "C" NOT NULL CHECK (tenant <> ''),
    namespace   text COLLATE "C" NOT NULL,
    -- How many by bucket of the sketch, JSON.
    counts      text NOT NULL,
    counted_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant, namespace)
);
COMMENT ON TABLE importance_counts IS 'Importances of a namespace by bucket; derived, and counted anew when old.';

CREATE INDEX memory_items_importance ON memory_items (tenant, namespace, importance)
    WHERE importance IS NOT NULL AND NOT deleted;
