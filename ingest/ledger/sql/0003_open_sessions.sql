-- Few of all sessions are open: those that are watched for the silence of their node.
CREATE INDEX session_open ON session (state, session) WHERE state IN ('live', 'incomplete');
