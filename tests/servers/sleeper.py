"""A server that does nothing, for the tests of the harness itself."""

from tests.servers.process import Server, Spec


class Sleeper(Server):
    """`script` is run by sh before it sleeps; it answers when its file `ready` is there."""

    KIND = "sleeper"
    START_S = 5.0
    STOP_S = 1.0

    @classmethod
    def plan(cls, place, *, script="touch ready"):
        return {"script": script}

    def spec(self):
        return Spec(["sh", "-c", f"{self.facts['script']}; exec sleep 600"], env={"GIVEN": "1"})

    def healthy(self):
        return (self.place / "ready").exists()
