-- The settings that each session starts with. `statement_timeout` does not apply to COPY, which the loader times
-- itself.
SET lock_timeout = '10s';
SET statement_timeout = '60s';

-- For the server's side: without these the backend of a client that vanished (power cut, cut cable) keeps its locks,
-- above all on the loader's mark, for hours.
SET idle_in_transaction_session_timeout = '30s';
SET tcp_user_timeout = '30s';
SET tcp_keepalives_idle = 15;
SET tcp_keepalives_interval = 5;
SET tcp_keepalives_count = 3;

SET client_min_messages = 'warning';

-- Otherwise a backend in the middle of a long search does not check. A server on a system other than Linux may not
-- support this.
DO $$ BEGIN
    PERFORM set_config('client_connection_check_interval', '10s', false);
EXCEPTION WHEN invalid_parameter_value THEN NULL;
END $$;

-- Bounds of partitions are written as text.
SET TimeZone = 'UTC';

-- A commit that the server has not flushed can be lost in a crash, although pixeld counts its hits as loaded and may have
-- removed their segments. A server set to `off` is overruled; any stronger setting stays.
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
