"""The answers to `modal deploy`: enough that the real command runs to its end, and its functions can then be called."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.empty_pb2 import Empty
from modal_proto import api_pb2 as pb


class Deploys:
    """What `modal deploy` creates.

    Attributes:
        created: The last definition of each function, by its id.
        published: Definitions of published functions, by app and name.
        images: The Dockerfile commands of each image, by its id, with those of the images below it.
    """

    def __init__(self) -> None:
        self.created: dict[str, Any] = {}
        self.published: dict[tuple[str, str], Any] = {}
        self.images: dict[str, list[str]] = {}
        self._count = 0

    def image_environment(self, image_id: str) -> dict[str, str]:
        """What the ENV commands of an image set."""
        commands = "\n".join(self.images.get(image_id, []))
        found = re.findall(r"^ENV (\w+)=(.*)$", commands, re.MULTILINE)
        return {name: value.strip().strip("'\"") for name, value in found}

    async def AppGetByDeploymentName(self, stream: Any) -> None:
        await self._answer(stream, lambda _: pb.AppGetByDeploymentNameResponse())

    async def AppCreate(self, stream: Any) -> None:
        await self._answer(stream, lambda _: pb.AppCreateResponse(app_id=self._id("ap"), app_page_url="http://app"))

    async def AppGetOrCreate(self, stream: Any) -> None:
        await self._answer(stream, lambda _: pb.AppGetOrCreateResponse(app_id=self._id("ap")))

    async def AppHeartbeat(self, stream: Any) -> None:
        await self._answer(stream, lambda _: Empty())

    async def AppClientDisconnect(self, stream: Any) -> None:
        await self._answer(stream, lambda _: Empty())

    async def AppPublish(self, stream: Any) -> None:
        def publish(request: Any) -> Any:
            for name, function_id in request.function_ids.items():
                self.published[request.name, name] = self.created[function_id]
            return pb.AppPublishResponse(url="http://app/deployed", deployed_at=1.0)

        await self._answer(stream, publish)

    async def EnvironmentGetOrCreate(self, stream: Any) -> None:
        settings = pb.EnvironmentSettings(image_builder_version="2025.06")
        metadata = pb.EnvironmentMetadata(name="main", settings=settings)
        answer = pb.EnvironmentGetOrCreateResponse(environment_id="en-1", metadata=metadata)
        await self._answer(stream, lambda _: answer)

    async def ImageGetOrCreate(self, stream: Any) -> None:
        def build(request: Any) -> Any:
            image_id = self._id("im")
            below = [line for base in request.image.base_images for line in self.images.get(base.image_id, [])]
            self.images[image_id] = [*below, *request.image.dockerfile_commands]
            return pb.ImageGetOrCreateResponse(
                image_id=image_id,
                result=pb.GenericResult(status=pb.GenericResult.GENERIC_STATUS_SUCCESS),
                metadata=pb.ImageMetadata(image_builder_version="2025.06"),
            )

        await self._answer(stream, build)

    async def MountPutFile(self, stream: Any) -> None:
        await self._answer(stream, lambda _: pb.MountPutFileResponse(exists=True))

    async def MountBatchedCheckExistence(self, stream: Any) -> None:
        await self._answer(stream, lambda _: pb.MountBatchedCheckExistenceResponse())

    async def MountGetOrCreate(self, stream: Any) -> None:
        metadata = pb.MountHandleMetadata(content_checksum_sha256_hex="0" * 64)
        await self._answer(
            stream, lambda _: pb.MountGetOrCreateResponse(mount_id=self._id("mo"), handle_metadata=metadata)
        )

    async def SecretGetOrCreate(self, stream: Any) -> None:
        await self._answer(stream, lambda _: pb.SecretGetOrCreateResponse(secret_id=self._id("st")))

    async def FunctionPrecreate(self, stream: Any) -> None:
        def precreate(request: Any) -> Any:
            kind = request.function_type
            metadata = pb.FunctionHandleMetadata(function_name=request.function_name, function_type=kind)
            return pb.FunctionPrecreateResponse(function_id=self._id("fu"), handle_metadata=metadata)

        await self._answer(stream, precreate)

    async def FunctionCreate(self, stream: Any) -> None:
        def create(request: Any) -> Any:
            data = request.function_data
            if not request.HasField("function_data"):
                ranked = pb.FunctionData.RankedFunction(rank=0, function=request.function)
                data = pb.FunctionData(ranked_functions=[ranked])
            function_id = request.existing_function_id
            self.created[function_id] = data.ranked_functions[0].function
            name = request.function.function_name or data.function_name
            metadata = pb.FunctionHandleMetadata(function_name=name, function_type=pb.Function.FUNCTION_TYPE_FUNCTION)
            return pb.FunctionCreateResponse(function_id=function_id, function_data=data, handle_metadata=metadata)

        await self._answer(stream, create)

    async def _answer(self, stream: Any, make: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(make(request))

    def _id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}-{self._count}"
