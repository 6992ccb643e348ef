"""A trainer whose pushes to the Hub are single commits, which lose nothing where they fail.

transformers pushes a checkpoint in several commits, reads files that the next save replaces, keeps the errors of
pushes in the background to itself, and publishes the token within its settings. What is pushed, `hub` says.
"""

from concurrent.futures import Future
from typing import Any, cast

from huggingface_hub import CommitInfo
from transformers.trainer_utils import HubStrategy
from transformers.utils.hub import PushInProgress

from ..config import AdversarialConfig
from .hub import client, make_repository, push_checkpoint, push_run
from .resumable import ResumableTrainer


class PushingTrainer(ResumableTrainer):
    """[`ResumableTrainer`] that pushes two models at once.

    Args:
        *args, **kwargs: As in [`~trl.GRPOTrainer`].
    """

    # Narrower or wider than transformers declares them.
    args: AdversarialConfig
    push_in_progress: PushInProgress | None  # type: ignore[assignment]
    hub_model_id: str | None  # type: ignore[assignment]
    _repo_id: str | None = None  # that building has made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._hub = client()
        self.push_in_progress = None
        super().__init__(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save the generator as always, and its settings without the token, which would be pushed with them."""
        token, self.args.hub_token = self.args.hub_token, None
        try:
            super()._save(output_dir, state_dict)
        finally:
            self.args.hub_token = token

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push both models of a checkpoint in one commit, and with them by `hub_strategy` the checkpoint."""
        if self._is_aside or not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        running = self.push_in_progress
        if running is not None and not running.is_done() and not self.args.hub_always_push:
            return  # as upstream
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        message = f"Training in progress, step {self.state.global_step}"
        job = push_checkpoint(self._hub, cast(str, self.hub_model_id), self.args, checkpoint_folder, message)
        self._pushes_in_background(job)

    def _pushes_in_background(self, job: "Future[CommitInfo]") -> None:
        """Let what would change files that are being pushed wait for it."""
        self.push_in_progress = self.push_in_progress or PushInProgress()
        jobs: Any = self.push_in_progress.jobs  # a list, which transformers declares as one of them
        self.push_in_progress.jobs = [one for one in [*jobs, job] if not one.done()]

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Take the repository that building has made, or make one."""
        if self.is_world_process_zero():
            self.hub_model_id = self._repo_id or make_repository(self.args, True, token, private)
            self.push_in_progress = None

    def push_to_hub(  # type: ignore[override]  # other processes have nothing to return
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> "CommitInfo | Future[CommitInfo] | None":
        """Save both models, and push them with their card in one commit.

        Args:
            commit_message (`str`, *optional*, defaults to `"End of training"`): Of the commit.
            blocking (`bool`, *optional*, defaults to `True`): Whether to wait for it.
            token (`str`, *optional*): With write access; `hub_token` by default.
            revision (`str`, *optional*): The branch; `hub_revision` by default.
            private (`bool`, *optional*): Whether only its owner sees a repository that is made now.
            **kwargs: Arguments of `create_model_card`.

        Returns:
            `CommitInfo`: The commit, or without `blocking` a `Future` of it.

        Raises:
            ConnectionError: If anything fails. Both models are saved then, and the repository is as it was.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        if self.hub_model_id is None:
            self.create_model_card(**kwargs)  # for what is left where the repository cannot be made
            self.init_hf_repo(token, private)
        self.create_model_card(**kwargs)
        what = self._hub, cast(str, self.hub_model_id), self.args, commit_message or "End of training", revision, token
        job = self._hub.run_as_future(push_run, *what)  # after what is pushed already
        self._pushes_in_background(job)
        return job.result() if blocking else job
